"""What giving out work costs as a project grows: one person's next group, an answer, the queue's top-up, the counts.

    python -m bench.load.assignment --sizes 1000 100000
    python -m bench.load.assignment --sizes 1000 100000 --sqlite

Nineteen of twenty groups are done, by two of fifty people each; the person who is measured has rated every tenth of them.
The rest waits. It starts its own PostgreSQL (a wheel; requirements-dev.txt) in a temporary folder and leaves nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

from bench.harness import Run, add_work, keep, told
from tests.servers import start_postgres, start_redis, temporary_folder

IMAGES, PEOPLE, RUNS = 4, 50, 40


def prepare(sqlite: bool):
    """Servers and an empty database; returns what stops them."""
    redis, os.environ["REDIS_URL"] = start_redis(temporary_folder("bench-redis"))
    stop = [redis.kill]
    os.environ |= {"LIKESTEP_DATA": str(temporary_folder("bench-data")), "DJANGO_SETTINGS_MODULE": "webapp.settings"}
    os.environ["SECRET_KEY"] = "a benchmark's key, which protects nothing at all"
    if sqlite:
        os.environ["DATABASE_URL"] = f"sqlite:///{temporary_folder('bench-db') / 'db.sqlite3'}"
    else:
        server, os.environ["DATABASE_URL"] = start_postgres(temporary_folder("bench-pg"))
        stop.append(server.cleanup)
    os.environ |= {"LOG_LEVEL": "ERROR", "ALLOWED_HOSTS": "localhost"}
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    return stop


def fill(project, people, size: int) -> None:
    """Groups in bulk, without files."""
    from django.utils import timezone

    from webapp.labelling.models import Generation, Group, GroupDecision, Label
    from webapp.quality.models import Consensus

    prompts = list(project.prompts.values_list("pk", flat=True))
    now, batch = timezone.now(), 2000
    for start in range(0, size, batch):
        numbers = range(start, min(size, start + batch))
        done = {n: n % 20 != 0 for n in numbers}
        groups = Group.objects.bulk_create(
            Group(
                project=project,
                prompt_id=prompts[n % len(prompts)],
                version=project.active_version,
                state="done" if done[n] else "ready",
                first_seed=n,
                size=IMAGES,
                decisions=2 if done[n] else 0,
            )
            for n in numbers
        )
        images = Generation.objects.bulk_create(
            Generation(group=g, position=i, seed=i, image="x", width=1, height=1) for g in groups for i in range(IMAGES)
        )
        labels, decisions, settled = [], [], []
        for n, group in zip(numbers, groups, strict=True):
            if not done[n]:
                continue
            # The measured person is people[0].
            raters = {people[0] if n % 10 == 1 else people[1 + n % (PEOPLE - 1)], people[1 + (n + 7) % (PEOPLE - 1)]}
            for user in raters:
                decisions.append(
                    GroupDecision(
                        group=group, user=user, outcome="submitted", seconds=5, idempotency_key=str(n), answer={}
                    )
                )
                mine = images[(n - start) * IMAGES : (n - start + 1) * IMAGES]
                labels += [Label(generation=i, annotator=user, liked=i.position < 2) for i in mine]
            rewards = [1.0, 1.0, 0.0, 0.0]
            settled.append(
                Consensus(group=group, project=project, rewards=rewards, signal=n % 3 > 0, people=2, labelled_at=now)
            )
        GroupDecision.objects.bulk_create(decisions, batch_size=5000)
        Label.objects.bulk_create(labels, batch_size=5000)
        Consensus.objects.bulk_create(settled, batch_size=5000)


def timed(work) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def measure(size: int) -> dict[str, float]:
    """Medians in milliseconds at this many groups."""
    from django.db import connection

    from webapp.accounts.models import User
    from webapp.campaigns.services import create_project
    from webapp.labelling import decisions, generation, leases
    from webapp.quality import counts

    name = f"bench-{size}"
    prompts = [{"prompt": f"{name} prompt {n}"} for n in range(500)]
    project = create_project(name, name, model_dir="x", student_dir="x", prompts=prompts, group_size=IMAGES, overlap=2)
    people = User.objects.bulk_create(User(username=f"{name}-{n}") for n in range(PEOPLE))
    fill(project, people, size)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    leased, submitted = [], []
    for n in range(RUNS):
        given = []
        leased.append(timed(lambda given=given: given.extend(leases.lease_groups(people[0], project, 1))))
        answer = {i: (i + n) % 2 == 0 for i in range(IMAGES)}
        submitted.append(
            timed(
                lambda given=given, answer=answer, n=n: decisions.submit_group(
                    people[0], project, given[0].pk, answer, seconds=3, idempotency_key=f"b{n}"
                )
            )
        )
    return {
        "next group": statistics.median(leased),
        "answer": statistics.median(submitted),
        "top-up": statistics.median(timed(lambda: generation.top_up(project.pk)) for _ in range(5)),
        "signal count": statistics.median(
            timed(lambda: counts.groups_with_signal_since(project, None)) for _ in range(5)
        ),
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--sqlite", action="store_true")
    add_work(parser, "assignment")
    arguments = parser.parse_args()
    stop = prepare(arguments.sqlite)
    try:
        rows = {}
        for size in arguments.sizes:
            rows[size] = measure(size)
            keep(arguments.work, Run.made_here(f"{size:,} groups", None, told(arguments), {"ms": rows[size]}))
    finally:
        for end in stop:
            end()
    names = next(iter(rows.values()))
    print("| groups | " + " | ".join(f"{name}, ms" for name in names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for size, found in rows.items():
        print(f"| {size:,} | " + " | ".join(f"{value:.1f}" for value in found.values()) + " |")


if __name__ == "__main__":
    main()
