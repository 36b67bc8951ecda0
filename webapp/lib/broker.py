"""The one module that knows the broker: queue, task and channel names, and how tasks are sent."""

from __future__ import annotations

import functools
import logging

import redis
from celery import Celery
from django.conf import settings

log = logging.getLogger(__name__)

GENERATE, TRAIN, ORACLE = "generate", "train", "oracle"
TASKS = {
    "generate_group": ("workers.tasks.generate_group", GENERATE),
    "generate_pairs": ("workers.tasks.generate_pairs", GENERATE),
    "generate_trial": ("workers.tasks.generate_trial", GENERATE),
    "plan_round": ("workers.tasks.plan_round", TRAIN),
    "run_round": ("workers.tasks.run_round", TRAIN),
    "score_group": ("workers.tasks.score_group", ORACLE),
    "deliver_webhook": ("workers.tasks.deliver_webhook", ORACLE),
    "share_version": ("workers.tasks.share_version", ORACLE),
    "measure_quality": ("workers.tasks.measure_quality", ORACLE),
    "housekeeping": ("workers.tasks.housekeeping", ORACLE),
}
HOUSEKEEPING_SECONDS = 15


def project_channel(project_id: int) -> str:
    """The Channels group that a project's open pages listen to."""
    return f"project-{project_id}"


def person_channel(user_id: int) -> str:
    """The Channels group of a person's open sockets."""
    return f"person-{user_id}"


def configure(app: Celery) -> Celery:
    """The settings that the web app and the workers share."""
    app.conf.update(
        broker_url=settings.REDIS_URL,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_routes={name: {"queue": queue} for name, queue in TASKS.values()},
        task_default_queue=ORACLE,
        # A round outlasts this; a redelivered task then finds the row claimed and returns.
        broker_transport_options={"visibility_timeout": 3600, "socket_timeout": 5, "socket_connect_timeout": 2},
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        beat_schedule={
            "housekeeping": {"task": TASKS["housekeeping"][0], "schedule": HOUSEKEEPING_SECONDS},
        },
    )
    return app


@functools.cache
def producer() -> Celery:
    """A Celery app that only sends."""
    app = configure(Celery("likestep"))
    # A request must not wait for a broker that is down: the row is committed, and housekeeping sends it later.
    patience = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, **patience}
    return app


def send(kind: str, row_id: int) -> bool:
    """Send a task now; False when the broker cannot be reached: housekeeping finds the row again."""
    name, queue = TASKS[kind]
    try:
        producer().send_task(name, args=[row_id], queue=queue, retry=False)
    except Exception as error:  # whatever the broker's client raises, the row is in the database
        log.warning("task %s of row %s waits for housekeeping: %s", kind, row_id, error)
        return False
    return True


def queue_lengths() -> dict[str, int] | None:
    """Tasks that wait for a worker, by queue; None when the broker cannot be reached."""
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=0.5, socket_connect_timeout=0.5)
    try:
        return {queue: client.llen(queue) for queue in (GENERATE, TRAIN, ORACLE)}
    except (redis.RedisError, OSError) as error:
        log.warning("the broker does not tell its queues: %s", error)
        return None
    finally:
        client.close()
