"""Labels back in: the same file any number of times, every line or none."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image

from tests.webapp.acting import submit
from webapp.campaigns.models import Membership, Role
from webapp.campaigns.services import set_archived
from webapp.exports import identity, imports
from webapp.labelling import decisions
from webapp.labelling.models import GroupDecision, Label, LabelEvent
from webapp.quality.models import Consensus

CASE = Path(__file__).resolve().parents[2] / "cases" / "labels" / "own-export-with-left-annotator.jsonl"


@pytest.fixture
def send(client, boss):
    client.force_login(boss)

    def post(data, name="labels.jsonl"):
        data = data if isinstance(data, bytes) else "\n".join(json.dumps(row) for row in data).encode()
        answer = client.post("/p/stars/import/", {"file": SimpleUploadedFile(name, data)})
        return answer.status_code, answer.content.decode()

    return post


@pytest.fixture
def exported(client, boss, labelled):
    client.force_login(boss)

    def get(container="jsonl"):
        answer = client.get("/p/stars/export/download/", {"format": "labels", "container": container})
        return b"".join(answer.streaming_content)

    return get


def wipe():
    """The database as before the labels."""
    LabelEvent.objects.all().delete()
    Label.objects.all().delete()
    GroupDecision.objects.all().delete()
    Consensus.objects.all().delete()


def state():
    """What a round would learn from, and who said what."""
    labels = Label.objects.order_by("generation", "annotator", "oracle")
    return (
        list(Consensus.objects.order_by("pk").values_list("pk", "rewards", "signal")),
        list(labels.values_list("generation", "annotator", "oracle", "liked", "score", "reason")),
    )


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_what_went_out_comes_back_once(send, exported, container):
    data, before = exported(container), state()
    wipe()
    status, page = send(data, f"x.{container}")
    assert status == 200, page
    assert "7 groups were new, 0 were there already" in page
    assert state() == before
    events = LabelEvent.objects.count()
    assert "0 groups were new, 7 were there already" in send(data, f"x.{container}")[1]
    assert (state(), LabelEvent.objects.count()) == (before, events)


def test_ones_own_export_comes_back_after_a_rename_a_removal_and_an_archive(send, exported, project, ann, boss):
    data, before = exported(), state()
    GroupDecision.objects.filter(user=ann).update(seconds=7.5)
    assert exported() != data
    data = exported()
    assert b'"ann"' not in data and b'"bob"' not in data
    ann.username = "Anne of another name"
    ann.save()
    Membership.objects.filter(user=ann).delete()
    set_archived(project, True, boss)
    assert exported() == data
    set_archived(project, False, boss)
    assert "0 groups were new, 7 were there already" in send(data)[1]
    assert exported() == data and state() == before
    Membership.objects.create(user=ann, project=project, role=Role.ANNOTATOR)
    wipe()
    assert "7 groups were new" in send(data)[1]
    assert set(GroupDecision.objects.filter(user=ann).values_list("seconds", flat=True)) == {7.5}
    assert state() == before


def test_files_with_names_come_back_though_somebody_left(send, project, ready, ann, person):
    """Files of before people had ids in them: tests/cases/labels/own-export-with-left-annotator.jsonl."""
    project.overlap = 2
    project.save()
    lines = [json.loads(line) for line in CASE.read_text().splitlines()]
    lines = [line for line in lines if line["group"] == lines[0]["group"]]
    (group,) = ready(1)
    group.generations.filter(position__gte=2).delete()  # the file's groups have two images
    seeds = dict(group.generations.values_list("position", "seed"))
    people = {name: person(name) for name in {line["annotator"] for line in lines}}
    rows = [line | {"group": group.pk, "seed": seeds[line["position"]]} for line in lines]
    for name, user in people.items():
        submit(user, project, group, [r["liked"] for r in rows if r["annotator"] == name])
    Membership.objects.filter(user=people["robert"]).delete()
    assert "0 groups were new, 2 were there already" in send(rows)[1]


def test_other_values_are_conflicts_and_left(send, exported, project, ann):
    rows = [json.loads(line) for line in exported().splitlines()]
    for row in rows:
        if row["annotator"] == identity.pseudonym(project, ann.pk) and row["position"] == 0:
            row["liked"] = not row["liked"]
    before = state()
    status, page = send(rows)
    assert status == 200
    assert page.count("ann decided otherwise since") == 3
    assert state() == before


def test_an_imported_answer_that_was_taken_back_stays_so(send, exported, ann, project):
    data = exported()
    wipe()
    send(data)
    undone, _answer, _why = decisions.undo(ann, project)
    before = state()
    status, page = send(data)
    assert status == 200
    assert f"group {undone.pk}: ann took the imported answer back" in page
    assert state() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotator": "nobody"}, "&#x27;nobody&#x27; is not a member"),
        ({"liked": 1}, "liked: true or false"),
        ({"group": 10**9}, "is no group of this project"),
        ({"position": 9}, "has no image 9"),
        ({"seed": -1}, "belongs to another database"),
        ({"oracle": "scenes"}, "give the annotator"),
        ({"group": None}, "group: it is missing"),
        ({"annotator": ["ann"]}, "annotator: it is a list or an object"),
        ({"annotator": "a\0b"}, "leave out null characters"),
        ({"annotator": "\ud83d"}, "leave out null characters"),
    ],
)
def test_one_wrong_line_imports_nothing(send, exported, change, message):
    rows = [json.loads(line) for line in exported().splitlines()]
    wipe()
    rows[0] |= change
    status, page = send(rows)
    assert status == 400
    assert "line 1: " in page and message in page
    assert Label.objects.count() == 0


def test_half_a_group_is_refused(send, exported):
    rows = [json.loads(line) for line in exported().splitlines()]
    wipe()
    status, page = send(rows[1:])
    assert status == 400 and "decided on only part of it" in page
    assert Label.objects.count() == 0


def test_what_is_no_labels_file_is_refused(send, project):
    assert "file: its content is binary" in send(b"\x00\xff")[1]
    assert "not Parquet" in send(b"PAR1 nonsense", "x.parquet")[1]


def parquet(rows):
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def test_a_file_is_judged_by_its_content_and_its_size(settings):
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    for name in ("labels.jsonl", "labels.parquet"):
        assert imports.read_rows(picture.getvalue(), name) == (
            [],
            ["file: its content is PNG; send text, CSV, JSONL or Parquet"],
        )
    assert imports.read_rows(b"{}\n\0", "x")[1] == ["file: its content is binary; send text, CSV, JSONL or Parquet"]
    rows = [{"group": 1, "position": 0, "liked": True, "annotator": "ann", "image": b"bytes that nobody asked for"}]
    read, wrong = imports.read_rows(parquet(rows), "labels.jsonl")  # whatever its name says
    assert (wrong, read) == ([], [(1, {k: v for k, v in rows[0].items() if k != "image"})])
    settings.LIKESTEP_IMPORT_LIMIT = 100
    (wrong,) = imports.read_rows(b"x" * 101, "labels.jsonl")[1]
    assert wrong == "file: 101 bytes; split it into parts of at most 100 (LIKESTEP_IMPORT_LIMIT)"


def test_a_small_parquet_file_that_is_large_in_memory_is_refused(monkeypatch):
    # A dictionary stores the text once, and here it would be read ten thousand times.
    bomb = parquet([{"group": 1, "position": 0, "liked": True, "oracle": "o", "reason": "x" * 100_000}] * 10_000)
    assert len(bomb) < 100_000
    assert "reason: more than 10,000 characters" in imports.read_rows(bomb, "x.parquet")[1][0]
    monkeypatch.setattr(imports, "MOST_ROWS", 99)
    many = parquet([{"group": 1, "position": 0, "liked": True}] * 100)
    assert "more than 99 rows" in imports.read_rows(many, "x.parquet")[1][0]
