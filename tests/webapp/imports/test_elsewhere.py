"""Groups without a version, seed or trajectory on every page and in every file that speaks of groups."""

import json
from datetime import timedelta

import pytest

from tests.own_images import picture
from tests.webapp import acting
from webapp.api.services import create_token
from webapp.campaigns import prompts
from webapp.exports import imports
from webapp.exports.formats import FORMATS
from webapp.imports.models import ImportedImage
from webapp.labelling import generation
from webapp.labelling.models import Generation, Group, GroupState
from webapp.labelling.queries import labelled_groups
from webapp.lib import paths
from webapp.operations import backup, garbage
from webapp.quality import counts
from webapp.quality import services as quality
from webapp.rounds import services as rounds

PAGES = (
    "",
    "gallery/",
    "gallery/?version=0",
    "quality/",
    "review/",
    "review/?which=all",
    "prompts/",
    "export/",
    "rounds/start/",
)


def finish(group):
    """As a worker does, with a trajectory."""
    claimed = generation.claim_group_for_generation(group.pk, "w")
    generation.complete_group(group.pk, claimed.token, [])
    group.refresh_from_db()
    return group


@pytest.fixture
def own(bring, stars, ann):
    """A rated group of own images beside a generated one that is rated too."""
    bring({f"{n}.png": picture(n) for n in range(4)}, prompt="1 stars")
    group = finish(Group.objects.get())
    acting.submit(ann, stars, group, [1, 0, 0, 1])
    return group


@pytest.fixture
def both(own, stars, ready, ann):
    (made,) = ready()
    acting.submit(ann, stars, made, [1, 0, 0, 1])
    return own, made


@pytest.mark.parametrize("page", PAGES)
def test_pages(client, boss, both, page):
    client.force_login(boss)
    assert client.get(f"/p/stars/{page}").status_code == 200


def test_the_gallery_and_the_review_say_what_they_are(client, boss, both):
    client.force_login(boss)
    own, made = both
    found = client.get("/p/stars/gallery/?version=0").content.decode()
    assert f"/review/{own.pk}/" in found and f"/review/{made.pk}/" not in found and "own images" in found
    found = client.get("/p/stars/gallery/?version=1").content.decode()
    assert f"/review/{own.pk}/" not in found and f"/review/{made.pk}/" in found
    assert "own images" in client.get(f"/p/stars/review/{own.pk}/").content.decode()
    start = client.get("/p/stars/rounds/start/").content.decode()
    assert "1 of them is of own images" in start


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("version", ["", "0", "1"])
def test_exports(client, boss, both, name, version):
    client.force_login(boss)
    answer = client.get("/p/stars/export/download/", {"format": name, "version": version})
    assert answer.status_code == 200 and b"".join(answer.streaming_content)


def test_labels_carry_their_origin_and_come_back(client, boss, both):
    client.force_login(boss)
    answer = client.get("/p/stars/export/download/", {"format": "labels", "container": "jsonl"})
    data = b"".join(answer.streaming_content)
    rows = [json.loads(line) for line in data.splitlines()]
    own = [row for row in rows if row["origin"] == "imported"]
    assert len(own) == 4 and len(rows) == 8
    unknown = {row[name] for row in own for name in ("version", "version_sha256", "seed", "steps")}
    assert unknown == {None} and all(row["seed"] for row in rows if row["origin"] == "generated")
    found, errors = imports.read_rows(data, "x.jsonl")
    assert not errors and imports.import_labels(both[0].project, found).known == 2


def test_the_api(client, boss, both, project):
    headers = {"Authorization": f"Bearer {create_token(project, boss, 'x', ['read', 'admin'])[1]}"}
    groups = client.get("/api/v1/projects/stars/groups", headers=headers).json()["items"]
    assert {g["version"] for g in groups} == {None, 1}
    assert {i["seed"] is None for g in groups for i in g["images"] if g["version"] is None} == {True}
    assert len(client.get("/api/v1/projects/stars/labels", headers=headers).json()["items"]) == 8


def test_numbers_by_version_leave_them_out(both, stars):
    rate = [{"version": 1, "labels": 4, "rate": 0.5}]
    assert counts.like_rates(stars) == rate
    quality.measure_project(stars)
    assert counts.like_rates(stars) == rate and counts.count_versions(stars) == 1
    assert set(prompts.like_rates(stars.prompts.values_list("pk", flat=True)).keys()) == {both[1].prompt_id}
    assert {g.pk for g in labelled_groups(stars)} == {g.pk for g in both}


def test_a_round_is_told_which_they_are(both, stars, tmp_path):
    training = rounds.start_round(stars, {}, idempotency_key="k")
    rounds.claim_round(training.pk, "w")
    training.refresh_from_db()
    spec = rounds.write_spec(training)
    lines = [json.loads(line) for line in (spec.parent / "groups.jsonl").read_text().splitlines()]
    assert [(line["imported"], line["version"] == "") for line in lines] == [(True, True), (False, False)]
    training.refresh_from_db()
    assert training.made_from["own"] == 1


def test_a_new_version_keeps_them_and_a_withdrawn_prompt_drops_them(bring, stars, boss):
    bring({f"{n}.png": picture(n) for n in range(4)}, prompt="1 stars")
    group = finish(Group.objects.get())
    generation.supersede_groups(stars, None)
    group.refresh_from_db()
    assert group.state == GroupState.READY
    prompts.withdraw(stars, [group.prompt_id], boss)
    group.refresh_from_db()
    assert group.state == GroupState.SUPERSEDED
    garbage.collect(older_than=timedelta(0), dry_run=False)
    assert not Generation.objects.exists() and not ImportedImage.objects.exists()
    garbage.collect(older_than=timedelta(0), dry_run=False)  # strays were looked for with the rows still there
    assert not list(paths.data(f"media/projects/{stars.pk}/own").glob("*"))
    _done, report = bring({f"{n}.png": picture(n) for n in range(4)}, prompt="2 stars")
    assert {outcome for outcome, _ in report.values()} == {"taken"}


def test_files_are_neither_strays_nor_missing(bring, stars):
    bring({f"{n}.png": picture(n) for n in range(4)}, prompt="1 stars")
    group = Group.objects.get()
    assert backup.missing_files() == []
    garbage.collect(older_than=timedelta(0), dry_run=False)
    assert backup.missing_files() == [] and group.generations.count() == 4
