"""What webhooks are to be told: rows written with the change they tell, sent by workers, tried again until they arrive."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from webapp.api.models import Delivery, DeliveryState, Webhook
from webapp.campaigns.models import Project
from webapp.lib import options
from webapp.lib.dispatch import enqueue
from webapp.quality.models import Consensus
from webapp.webhooks.events import MILESTONE, Event
from webapp.webhooks.outgoing import Refused, post

KEY_FOLLOWS = "whsec_"  # what follows is the key, in base64
FIRST_WAIT = timedelta(seconds=10)  # doubled with every try
LONGEST_WAIT = timedelta(hours=1)
CLAIM = timedelta(minutes=2)  # a worker that is lost while it sends gives the message back after this


def tell(project_id: int, event: Event, key: str, data: dict) -> None:
    """Put an event into the outbox of each webhook that wants it, once for each `key`; call it in the transaction of
    the change."""
    for webhook in Webhook.objects.filter(project=project_id, active=True).select_related("project"):
        if event.name in webhook.events:
            _put(webhook, event, key, data)


def _put(webhook: Webhook, event: Event, key: str, data: dict) -> None:
    if set(data) != set(event.data):
        raise ValueError(
            f"{event.name}: {sorted(set(data) ^ set(event.data))[0]} is declared otherwise in webhooks/events.py"
        )
    now = timezone.now()
    payload = {"event": event.name, "project": webhook.project.slug, "created_at": now.isoformat(), "data": data}
    delivery, new = Delivery.objects.get_or_create(
        webhook=webhook, key=key, defaults={"event": event.name, "payload": payload, "next_at": now}
    )
    if new:
        enqueue("deliver_webhook", delivery.pk)


def announce_milestones() -> None:
    """Tell each webhook that wants it when `every` more groups have labels; only the newest milestone is told."""
    for webhook in Webhook.objects.filter(active=True, project__archived_at=None).select_related("project"):
        if MILESTONE.name not in webhook.events:
            continue
        labelled = Consensus.objects.filter(project=webhook.project).count()
        reached = labelled - labelled % webhook.every
        if reached <= webhook.announced:
            continue
        with transaction.atomic():
            data = {"labelled_groups": reached}
            _put(webhook, MILESTONE, f"labels-{reached}", data)
            Webhook.objects.filter(pk=webhook.pk).update(announced=reached)


def due() -> list[int]:
    """Ids of the messages that wait to be sent, the longest waiting first."""
    waiting = Delivery.objects.filter(state=DeliveryState.PENDING, next_at__lte=timezone.now())
    return list(waiting.order_by("next_at").values_list("pk", flat=True)[:200])


def signature(secret: str, moment: int, body: bytes) -> str:
    """The value of `X-Likestep-Signature`, which stays for one more version:
    `t=<unix seconds>,v1=<HMAC-SHA256 of "<t>.<body>" in hex>`."""
    signed = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={signed}"


def standard_signature(secret: str, name: str, moment: int, body: bytes) -> str:
    """Standard Webhooks' header `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 of "<id>.<timestamp>.<body>". The
    key is what stands in base64 after `whsec_`, or a secret of before that as it is."""
    key = base64.b64decode(secret.removeprefix(KEY_FOLLOWS)) if secret.startswith(KEY_FOLLOWS) else secret.encode()
    signed = hmac.digest(key, f"{name}.{moment}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


def new_secret() -> str:
    """A secret as Standard Webhooks writes it, 32 bytes."""
    return KEY_FOLLOWS + base64.b64encode(secrets.token_bytes(32)).decode()


def deliver(delivery_id: int) -> DeliveryState | None:
    """Try a message once, unless another worker is at it; what came of it, None when there is nothing to do.

    No transaction is open while the network is waited for.
    """
    now = timezone.now()
    claimed = Delivery.objects.filter(pk=delivery_id, state=DeliveryState.PENDING, next_at__lte=now).update(
        next_at=now + CLAIM
    )
    if not claimed:
        return None
    delivery = Delivery.objects.select_related("webhook").get(pk=delivery_id)
    webhook = delivery.webhook
    if not webhook.active:
        return _note(delivery, None, "the webhook was switched off", final=True)
    body = json.dumps({"id": delivery.pk, **delivery.payload}, ensure_ascii=False).encode()
    name, moment = f"msg_{delivery.pk}", int(time.time())
    headers = {
        "Content-Type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": str(moment),
        "webhook-signature": standard_signature(webhook.secret, name, moment, body),
        "User-Agent": "Likestep-Webhook/1",
        "X-Likestep-Event": delivery.event,
        "X-Likestep-Delivery": str(delivery.pk),
        "X-Likestep-Signature": signature(webhook.secret, moment, body),
    }
    try:
        status = post(webhook.url, body, headers)
    except Refused as error:
        return _note(delivery, None, str(error), final=True)
    except OSError as error:
        return _note(delivery, None, f"{type(error).__name__}: {error}")
    return _note(delivery, status, "" if 200 <= status < 300 else f"answered with {status}")


def _note(delivery: Delivery, status: int | None, error: str, *, final: bool = False) -> DeliveryState:
    delivery.attempts += 1
    delivery.status, delivery.error = status, error[:300]
    if not error:
        delivery.state, delivery.delivered_at = DeliveryState.DELIVERED, timezone.now()
    elif final or delivery.attempts >= options.WEBHOOK_TRIES:
        delivery.state = DeliveryState.FAILED
    else:
        delivery.next_at = timezone.now() + min(LONGEST_WAIT, FIRST_WAIT * 2 ** (delivery.attempts - 1))
    delivery.save()
    return delivery.state


def switch_on(project: Project, url: str, events: list[str], secret: str, by, *, every: int = 100) -> Webhook:
    """A new webhook; milestones count from now."""
    labelled = Consensus.objects.filter(project=project).count()
    return Webhook.objects.create(
        project=project,
        url=url,
        events=events,
        secret=secret,
        every=every,
        announced=labelled - labelled % every,
        created_by=by,
    )
