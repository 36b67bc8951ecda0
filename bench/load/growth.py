"""What pages, lists and the queue cost in a project of many groups: how long each request takes, through Django's client.

    python -m bench.load.growth --sizes 1000 100000 1000000

It starts its own PostgreSQL and Redis (wheels; requirements-dev.txt), fills a project for each size with rows in bulk
(no files), asks for each page several times as its admin or as an annotator, and prints medians and what the last size
costs relative to the first. Nineteen of twenty groups are done, by two of fifty people each; the annotator who is
measured has rated every tenth of them, and a tenth of those that wait for a second person. Ties and flags are rare.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time

from django.core.management import call_command

from bench.harness import Run, add_work, keep, told
from bench.load.assignment import prepare
from tests.servers import temporary_folder

IMAGES, PEOPLE, PROMPTS = 4, 50, 500

# {first}: the number before the first group; the project's groups are first + 1 … first + size. Every statement is one
# pass. People are user0 … user0 + 49; user0 is the one who is measured.
FILL = [
    """INSERT INTO labelling_group (id, project_id, prompt_id, version_id, state, first_seed, size, trajectory_file,
        attempt, owner, token, error, created_at, decisions)
    SELECT {first} + n, {project}, {prompt0} + n % {prompts}, {version},
        CASE WHEN n % 2000 = 7 THEN 'flagged' WHEN n % 20 = 0 THEN 'ready' ELSE 'done' END, n, {images}, 'x', 1, '', 1,
        '', now() - ({size} - n) * interval '4 seconds', CASE WHEN n % 20 > 0 THEN 2 WHEN n % 200 = 0 THEN 1 ELSE 0 END
    FROM generate_series(1, {size}) n""",
    """INSERT INTO labelling_generation (id, group_id, position, seed, image, width, height)
    SELECT ({first} + n) * {images} + i, {first} + n, i, n + i, 'x', 512, 512
    FROM generate_series(1, {size}) n, generate_series(0, {images} - 1) i""",
    # Two people a done group; the measured person alone on every tenth that waits.
    """INSERT INTO labelling_groupdecision
        (group_id, user_id, outcome, reason, seconds, idempotency_key, answer, created_at)
    SELECT g.id, CASE WHEN p = 0 AND g.first_seed % 10 IN (0, 1) THEN {user0}
            ELSE {user0} + 1 + (g.first_seed + 7 * p) % ({people} - 1) END,
        'submitted', '', 8, 'k' || g.id, '{{"0": true, "1": true, "2": false, "3": false}}', g.created_at
    FROM labelling_group g, generate_series(0, 1) p WHERE g.project_id = {project} AND p < g.decisions""",
    """INSERT INTO labelling_label (generation_id, annotator_id, oracle, liked, score, reason, created_at)
    SELECT d.group_id * {images} + i, d.user_id, '', i < 2, NULL, '', d.created_at
    FROM labelling_groupdecision d JOIN labelling_group g ON g.id = d.group_id, generate_series(0, {images} - 1) i
    WHERE g.project_id = {project}""",
    """INSERT INTO labelling_labelevent (generation_id, annotator_id, oracle, liked, created_at)
    SELECT d.group_id * {images} + i, d.user_id, '', i < 2, d.created_at
    FROM labelling_groupdecision d JOIN labelling_group g ON g.id = d.group_id, generate_series(0, {images} - 1) i
    WHERE g.project_id = {project}""",
    """INSERT INTO quality_consensus (group_id, project_id, rewards, signal, tie, people, labelled_at)
    SELECT id, {project}, '[1.0, 1.0, 0.0, 0.0]', first_seed % 3 > 0, first_seed % 20000 = 11, decisions, created_at
    FROM labelling_group WHERE project_id = {project} AND decisions > 0""",
    """INSERT INTO labelling_flag (group_id, user_id, kind, note, created_at)
    SELECT id, {user0} + 1, 'broken', '', created_at FROM labelling_group
    WHERE project_id = {project} AND state = 'flagged' AND first_seed % 100000 = 7""",
    """INSERT INTO campaigns_auditentry (project_id, user_id, action, detail, created_at)
    SELECT {project}, {user0}, 'joined', '{{}}', now() FROM generate_series(1, {size} / 10)""",
    "SELECT setval(pg_get_serial_sequence('labelling_group', 'id'), {first} + {size} + 1)",
    "SELECT setval(pg_get_serial_sequence('labelling_generation', 'id'), ({first} + {size} + 1) * {images} + {images})",
]


def fill(project, people, size: int) -> float:
    """Rows in bulk; returns the seconds it took."""
    from django.db import connection
    from django.db.models import Max

    from webapp.labelling.models import Group

    values = {
        "first": Group.objects.aggregate(n=Max("id"))["n"] or 0,
        "project": project.pk,
        "prompt0": project.prompts.order_by("id").first().pk,
        "prompts": PROMPTS,
        "version": project.active_version_id,
        "user0": people[0].pk,
        "people": PEOPLE,
        "images": IMAGES,
        "size": size,
    }
    start = time.monotonic()
    with connection.cursor() as cursor:
        for statement in FILL:
            cursor.execute(statement.format(**values))
        cursor.execute("VACUUM ANALYZE")
    return time.monotonic() - start


def pages(slug: str, boss, ann, ann_id: int) -> dict[str, tuple]:
    """Name → (client, path): what is asked for by GET."""
    from webapp.quality.queries import ORDERS

    paths = {
        "dashboard": "",
        "dashboard's lines": "series/",
        "quality": "quality/",
        "flags": "flags/",
        "versions": "versions/",
        "prompts": "prompts/",
        "audit log": "audit/",
        "export's count": "export/?format=labels&container=jsonl&signal=on",
        "guidelines": "guidelines/",
        "gallery": "gallery/",
        "gallery: a prompt": "gallery/?text=prompt+77&verdict=liked",
        "gallery: a person's dislikes": f"gallery/?person={ann_id}&verdict=disliked",
        "gallery: disagreement": "gallery/?disagree=on",
        "gallery: nothing of the kind": "gallery/?version=1&since=2999-01-01",
        **{f"review: {name}": f"review/?show={name}" for name in ORDERS},
    }
    found = {name: (boss, f"/p/{slug}/{path}") for name, path in paths.items()}
    return found | {"my work": (ann, f"/p/{slug}/me/"), "metrics": (boss, "/metrics")}


def measure(size: int, runs: int) -> dict[str, float]:
    """Median milliseconds of each request at this many groups."""
    from django.test import Client

    from webapp.accounts.models import User
    from webapp.api.services import create_token
    from webapp.campaigns.models import Membership
    from webapp.campaigns.services import create_project
    from webapp.labelling import generation
    from webapp.labelling.models import Group
    from webapp.quality import counts
    from webapp.quality import services as quality

    slug = f"load-{size}"
    prompts = [{"prompt": f"{slug} prompt {n}"} for n in range(PROMPTS)]
    project = create_project(slug, slug, model_dir="x", student_dir="x", prompts=prompts, group_size=IMAGES, overlap=2)
    people = User.objects.bulk_create(User(username=f"{slug}-{n}") for n in range(PEOPLE))
    boss = User.objects.create_user(f"{slug}-boss")
    Membership.objects.bulk_create(Membership(user=u, project=project, role="annotator") for u in people)
    Membership.objects.create(user=boss, project=project, role="admin")
    print(f"{size:,} groups filled in {fill(project, people, size):.0f} s", file=sys.stderr, flush=True)
    found = {
        "(a worker's counts, once)": timed(
            lambda: (counts.count_quarters(project), counts.count_versions(project), counts.count_large())
        )
    }

    clients = []
    for user in (boss, people[0]):
        client = Client(headers={"host": "localhost"})
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        clients.append(client)
    admin, ann = clients

    def ask(client, path, **options):
        answer = client.get(path, **options)
        assert answer.status_code == 200, (path, answer.status_code)
        return answer

    given: list[dict] = []

    def next_group():
        given[:] = ask(ann, f"/p/{slug}/groups/next/").json()["groups"]

    def submit(n: int):
        path = f"/p/{slug}/groups/{given[0]['group']}/submit/"
        body = {"labels": {str(i): (i + n) % 2 == 0 for i in range(IMAGES)}, "seconds": 3, "key": f"b{n}"}
        answer = ann.post(path, json.dumps(body), content_type="application/json")
        assert answer.status_code == 200, answer.content

    both = [(timed(next_group), timed(lambda n=n: submit(n))) for n in range(runs)]
    found["next group"], found["submit"] = (statistics.median(times) for times in zip(*both, strict=True))
    token = create_token(project, boss, "load", ["read"])[1]
    headers = {"Authorization": f"Bearer {token}", "host": "localhost"}
    middle = Group.objects.filter(project=project).order_by("id")[size // 2].pk
    queries = {
        "API groups": "groups?limit=100",
        "API groups, in the middle, with signal": f"groups?limit=100&signal=true&after={middle}",
        "API groups, flagged": "groups?limit=100&state=flagged",
        "API labels": "labels?limit=100",
        "API labels, in the middle": f"labels?limit=100&after={middle * 2 * IMAGES}",
        "API project": "",
    }
    for name, (client, path) in pages(slug, admin, ann, people[0].pk).items():
        found[name] = statistics.median(timed(lambda c=client, p=path: ask(c, p)) for _ in range(runs // 4))
    for name, path in queries.items():
        address = f"/api/v1/projects/{slug}/{path}"
        found[name] = statistics.median(
            timed(lambda a=address: ask(admin, a, headers=headers)) for _ in range(runs // 4)
        )
    found["housekeeping: top-up"] = statistics.median(timed(lambda: generation.top_up(project.pk)) for _ in range(3))
    found["housekeeping: due"] = statistics.median(timed(quality.due) for _ in range(3))
    return found


def timed(work) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--runs", type=int, default=20, help="submits; pages are asked for a quarter as often")
    add_work(parser, "growth")
    arguments = parser.parse_args()
    os.environ["STATIC_ROOT"] = str(temporary_folder("bench-static"))
    stop = prepare(sqlite=False)
    try:
        call_command("collectstatic", verbosity=0)
        measured = {}
        for size in arguments.sizes:
            measured[size] = measure(size, arguments.runs)
            keep(arguments.work, Run.made_here(f"{size:,} groups", None, told(arguments), {"ms": measured[size]}))
    finally:
        for end in stop:
            end()
    sizes = list(measured)
    print("| median ms | " + " | ".join(f"{size:,} groups" for size in sizes) + " | last / first |")
    print("|---" * (len(sizes) + 2) + "|")
    for name in measured[sizes[0]]:
        row = [measured[size][name] for size in sizes]
        print(f"| {name} | " + " | ".join(f"{v:,.0f}" for v in row) + f" | {row[-1] / row[0]:.1f} |")


if __name__ == "__main__":
    main()
