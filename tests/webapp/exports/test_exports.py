"""Every export, read back by the library that it is for."""

import csv
import gc
import html
import io
import json
import tracemalloc
import zipfile
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from django.utils import timezone

from tests.webapp import acting
from webapp.accounts.models import User
from webapp.exports import formats, identity, records, tools, writers
from webapp.labelling import decisions
from webapp.labelling.models import Generation, Group, GroupDecision, Label
from webapp.lib import bounds, paths
from webapp.quality import services as quality


@pytest.fixture
def load(fetch, tmp_path):
    """load(format, container): the export through `datasets.load_dataset`; tests/stock has who reads it unchanged."""
    import datasets

    datasets.disable_progress_bars()

    def read(format, container, **filters):
        ending = {"jsonl": "json"}.get(container, "parquet")
        file = tmp_path / f"{format}-{container}-{len(list(tmp_path.iterdir()))}.{ending}"
        file.write_bytes(fetch(format, container, **filters))
        return datasets.load_dataset(
            ending, data_files=str(file), split="train", cache_dir=str(tmp_path / f"cache-{file.stem}")
        )

    return read


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_unpaired_says_of_each_decided_image_whether_it_is_liked(load, container):
    data = load("unpaired", container)
    assert data.column_names == ["image", "caption", "label"]
    assert data.features["label"].dtype == "bool" and data.features["caption"].dtype == "string"
    # The third group's image 2 is split evenly, so it is neither.
    assert sum(data["label"]) == 2 + 4 + 1
    assert len(data) == 4 + 4 + 3
    assert data[0]["image"].startswith("http://testserver/p/stars/images/")


def test_preference_pairs_likes_with_dislikes_of_a_group(load, labelled):
    data = load("preference", "parquet")
    assert data.column_names == ["caption", "image_0_url", "image_1_url", "label_0", "label_1"]
    assert len(data) == 2 * 2 + 0 + 1 * 2
    urls = {f"http://testserver/p/stars/images/{g.pk}.webp": g for g in Generation.objects.all()}
    for row in data:
        first, second = urls[row["image_0_url"]], urls[row["image_1_url"]]
        assert first.group_id == second.group_id and first.position < second.position
        assert first.group.prompt.text == row["caption"]
        assert row["label_0"] + row["label_1"] == 1


def test_images_inside_parquet_are_decoded_by_datasets(load):
    data = load("unpaired", "parquet-images")
    assert type(data.features["image"]).__name__ == "Image"
    assert data[0]["image"].size == (128, 128)
    assert len(load("labels", "parquet-images")) == 28


@pytest.mark.parametrize("container", ["jsonl", "parquet", "parquet-images"])
def test_pickapic_has_a_row_a_person_and_pair(load, container, project, ann):
    data = load("pickapic", container)
    assert len(data) == 2 * 4 + 4 + 3
    for row in data:
        assert row["label_0"] + row["label_1"] == 1
        assert row["best_image_uid"] == row[f"image_{int(row['label_1'])}_uid"]
        assert int(row["image_0_uid"].rsplit("-")[-1]) < int(row["image_1_uid"].rsplit("-")[-1])
        assert row["image_0_url"].startswith("http://testserver/p/stars/images/")
    assert {
        row["num_example_per_prompt"]
        for row in data
        if row["user_id"] == identity.number(identity.pseudonym(project, ann.pk))
    } == {4}


def test_hpd_and_imagereward_have_the_keys_of_the_originals(fetch, project):
    test, train = json.loads(fetch("hpd-test")), json.loads(fetch("hpd-train"))
    assert {frozenset(row) for row in test} == {frozenset({"prompt", "image_path", "rank", "raw_annotations"})}
    assert [row["rank"] for row in test] == [[1, 2, 2, 1], [1, 3, 2, 3]]  # a group that is all liked ranks nothing
    assert [[a["rank"] for a in row["raw_annotations"]] for row in test] == [
        [[1, 2, 2, 1]] * 2,
        sorted([[1, 2, 1, 2], [1, 2, 2, 2]], key=[a["rank"] for a in test[1]["raw_annotations"]].index),
    ]
    assert len({a["user_hash"] for row in test for a in row["raw_annotations"]}) == 2
    assert {frozenset(row) for row in train} == {frozenset({"prompt", "file_path", "human_preference"})}
    assert len(train) == 2 * 2 + 1 * 2 and all(sorted(row["human_preference"]) == [0, 1] for row in train)
    ranked = json.loads(fetch("imagereward"))
    assert {frozenset(row) for row in ranked} == {frozenset({"id", "prompt", "generations", "ranking"})}
    assert [row["ranking"] for row in ranked] == [row["rank"] for row in test]
    assert len({row["id"] for row in ranked}) == len(ranked)


def test_label_studio_tasks_have_the_documented_keys(fetch, labelled):
    tasks = json.loads(fetch("labelstudio"))
    assert len(tasks) == sum(g.size for g in labelled)
    for task in tasks:
        assert set(task) == {"data", "annotations", "predictions"}
        assert set(task["data"]) == {"image", "prompt", "image_uid", "group", "position", "origin", "version"}
        assert len(task["annotations"]) == 2
        for annotation in task["annotations"]:
            keys = "result was_cancelled ground_truth lead_time created_at updated_at"
            assert set(annotation) == set(keys.split())
            (result,) = annotation["result"]
            assert set(result) == {"id", "from_name", "to_name", "type", "value", "meta"}
            assert f'name="{result["from_name"]}" toName="{result["to_name"]}"' in tools.LABELSTUDIO_INTERFACE
    assert tasks[0]["predictions"][0]["model_version"] == "scenes"
    assert [t["predictions"][0]["score"] for t in tasks[:4]] == [0.9, 0.1, 0.2, 0.8]


def test_csv_is_read_by_spreadsheets_and_runs_nothing_in_them(fetch, labelled, project):
    hostile = ["=1+1", "+49", "-5 degrees", "@SUM(A1)", "\tx", "fine = yes", 'a "b", c\nd']
    for text in hostile:
        rows = list(csv.reader(io.StringIO(b"".join(writers.csv_table([{"t": text}], ["t"])).decode("utf-8-sig"))))
        assert rows == [["t"], [f"'{text}" if text in hostile[:5] else text]]
    (prompt := labelled[0].prompt).text = "=HYPERLINK(1)"
    prompt.save()
    data = fetch("labels", "csv")
    assert data.startswith(b"\xef\xbb\xbf") and data.count(b"\r\n") == 29
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert {row["prompt"] for row in rows if row["group"] == str(labelled[0].pk)} == {"'=HYPERLINK(1)"}
    plain = [json.loads(line) for line in fetch("labels", "jsonl").splitlines()]
    assert [row["seed"] for row in rows] == [str(row["seed"]) for row in plain]
    assert {row["liked"] for row in rows} == {"true", "false"}
    assert [row["score"] for row in rows] == ["" if row["score"] is None else str(row["score"]) for row in plain]
    table = pd.read_csv(io.BytesIO(data))
    assert list(table.columns) == formats.FORMATS["labels"].schema.names
    assert table["liked"].tolist() == [row["liked"] for row in plain]


def test_the_labels_export_keeps_the_whole_provenance(load, labelled, project):
    data = load("labels", "parquet")
    assert data.column_names == formats.FORMATS["labels"].schema.names
    assert len(data) == 2 * 12 + 4
    row = data[0]
    image = Generation.objects.get(group=row["group"], position=row["position"])
    assert (row["seed"], row["version"], row["steps"]) == (image.seed, 1, 4)
    assert {r["oracle"] for r in data if r["annotator"] is None} == {"scenes"}


@pytest.mark.parametrize("name", [name for name, f in formats.FORMATS.items() if f.schema is not None])
def test_a_file_has_every_column_of_its_rows(name, project, labelled):
    chosen = formats.FORMATS[name]
    made = [r for g in records.records(project, records.Filter()) for r in chosen.rows(g, lambda group, image: "x")]
    assert made and all(set(row) == set(chosen.schema.names) for row in made)


def test_every_column_of_the_labels_is_documented():
    text = (Path(__file__).parents[3] / "docs" / "data-formats.md").read_text()
    table = text[text.index("## `labels`") :].split("**Import.**")[0]
    assert all(f"`{name}`" in table for name in formats.FORMATS["labels"].schema.names)


def test_labels_say_how_likely_their_image_was_to_be_shown(fetch, labelled):
    Generation.objects.filter(group=labelled[0]).update(inclusion=0.25)
    rows = [json.loads(line) for line in fetch("labels").splitlines()]
    assert {r["inclusion"] for r in rows if r["group"] == labelled[0].pk} == {0.25}
    assert {r["inclusion"] for r in rows if r["group"] != labelled[0].pk} == {1.0}


def test_filters_leave_out_what_they_say(fetch, project, labelled):
    def groups(**filters):
        return {json.loads(line)["group"] for line in fetch("labels", **filters).splitlines()}

    first, second, third = (g.pk for g in labelled)
    assert groups(signal="on") == {first, third}
    assert groups(version="1", split="train") == {first, second, third}
    assert groups(split="test") == set()
    bob = identity.pseudonym(project, GroupDecision.objects.filter(user__username="bob").first().user_id)
    assert {json.loads(r)["annotator"] for r in fetch("labels", annotator=bob).splitlines()} == {bob}
    assert groups(annotator=bob, signal="on") == {first, third}
    Label.objects.filter(generation__group=first).update(created_at=timezone.now() - timedelta(days=9))
    today = timezone.now().date()
    assert groups(since=today) == {second, third}
    assert groups(until=today - timedelta(days=1)) == {first}
    # With part of the labels the reward is theirs alone: bob dislikes image 2 of the third group.
    assert [r["label"] for r in map(json.loads, fetch("unpaired", annotator=bob).splitlines())].count(True) == 7


def test_signal_is_that_of_the_rewards_that_go_out(client, fetch, project, labelled, ann):
    """Together two people may have signal that one of them has not, and the other way round."""
    first, second, third = (g.pk for g in labelled)
    by = {
        name: identity.pseudonym(project, u.pk) for name, u in (("ann", ann), ("bob", User.objects.get(username="bob")))
    }
    Label.objects.filter(generation__group=third, annotator__username="bob").update(liked=True)
    Label.objects.filter(generation__group=second, generation__position=0, annotator=ann).update(liked=False)
    Label.objects.filter(generation__group=second, generation__position=1, annotator__username="bob").update(
        liked=False
    )
    quality.settle_groups(project, labelled)

    def groups(**filters):
        return {json.loads(line)["group"] for line in fetch("labels", signal="on", **filters).splitlines()}

    assert groups() == {first, second, third}
    assert groups(annotator=by["ann"]) == {first, second, third}
    assert groups(annotator=by["bob"]) == {first, second}
    page = client.get("/p/stars/export/", {"format": "labels", "signal": "on", "annotator": by["bob"]}).content.decode()
    assert "2 groups." in page
    for line in fetch("labels", signal="on", annotator=by["bob"]).splitlines():
        row = json.loads(line)
        assert row["reward"] == row["liked"]


def test_days_are_iso_in_every_language_and_have_bounds(client, boss, labelled):
    client.force_login(boss)

    def status(**query):
        answer = client.get(
            "/p/stars/export/download/", {"format": "labels", **query}, headers={"Accept-Language": "de"}
        )
        return answer.status_code

    low, high, day = bounds.DAYS.low, bounds.DAYS.high, timedelta(days=1)
    assert status(since=low, until=high) == status(since=high) == status(until=low) == 200
    assert status(since=low - day) == status(until=low - day) == 400
    assert status(since=high + day) == status(until=high + day) == 400
    assert status(since="0001-01-01") == status(until="9999-12-31") == status(until="10000-01-01") == 400
    assert status(since="31.12.2026") == status(since="12/31/2026") == 400
    assert "2999-12-31" in client.get("/p/stars/export/download/?format=labels&until=3000-01-01").content.decode()
    page = client.get("/p/stars/export/download/?format=labels&since=2026-02-01&until=2026-01-31").content.decode()
    assert "2026-02-01 is after 2026-01-31, the last day" in page


@pytest.fixture
def exported(project):
    """exported(): the groups that go out without a filter; they are as many as are counted."""

    def groups():
        found = {r.id for r in records.records(project, records.Filter())}
        assert records.count(project, records.Filter()) == len(found)
        return found

    return groups


def test_a_finished_groups_flag_leaves_its_labels_until_a_reviewer_has_looked(
    project, labelled, person, boss, exported
):
    first, second, third = (g.pk for g in labelled)
    for group in (second, third):
        acting.flag_group(person(f"eve{group}"), project, group, kind="broken", position=None, idempotency_key="f")
    assert exported() == {first, second, third}
    decisions.resolve_flags(boss, project, second, restore=True)
    assert exported() == {first, second, third}
    decisions.resolve_flags(boss, project, third, restore=False)
    assert exported() == {first, second}


def test_a_flagged_group_of_the_queue_is_left_out_until_it_is_put_back(project, ready, ann, person, boss, exported):
    project.overlap = 2
    project.save()
    flagged, other = ready(2)
    for group in (flagged, other):
        acting.submit(ann, project, group, [1, 0, 0, 1])
    assert exported() == {flagged.pk, other.pk}
    acting.flag_group(person("eve"), project, flagged.pk, kind="broken", position=None, idempotency_key="f")
    assert exported() == {other.pk}
    decisions.resolve_flags(boss, project, flagged.pk, restore=True)
    assert exported() == {flagged.pk, other.pk}


def test_a_filter_or_shape_that_does_not_exist_is_named(client, boss, project):
    client.force_login(boss)
    for query in ("format=pdf", "format=labels&version=9", "format=hpd-test&container=parquet-images"):
        assert client.get(f"/p/stars/export/download/?{query}").status_code == 400
    page = client.get("/p/stars/export/?format=labelstudio&container=parquet").content.decode()
    assert "Label Studio comes as one of json-images, zip-json" in page


def test_every_format_has_a_description_on_the_page_and_in_the_reference(client, boss, project):
    client.force_login(boss)
    page = html.unescape(client.get("/p/stars/export/").content.decode())
    schema = client.get("/api/v1/openapi.json").json()
    parameters = schema["paths"]["/api/v1/projects/{slug}/export"]["get"]["parameters"]
    said = next(p for p in parameters if p["name"] == "format")["description"]
    for chosen in formats.FORMATS.values():
        assert f"<code>{chosen.name}</code>" in page and str(chosen.help) in page
        assert f"`{chosen.name}`: {chosen.help}" in said


@pytest.mark.parametrize("container", ["zip-jsonl", "zip-parquet"])
@pytest.mark.parametrize("format", ["unpaired", "labels"])
def test_an_archive_has_every_image_that_its_rows_name(fetch, format, container, labelled):
    lost = Generation.objects.get(group=labelled[1], position=2)
    paths.data(lost.image).unlink()
    packed = zipfile.ZipFile(io.BytesIO(fetch(format, container)))
    assert packed.testzip() is None
    ending = container.removeprefix("zip-")
    data = packed.read(f"metadata.{ending}")
    rows = (
        [json.loads(line) for line in data.splitlines()]
        if ending == "jsonl"
        else pq.read_table(io.BytesIO(data)).to_pylist()
    )
    named = {row["file_name"] for row in rows}
    assert packed.read("missing.txt").decode() == f"images/{lost.group_id}/2.webp\n"
    assert named - {None} <= set(packed.namelist())
    assert all(packed.read(name)[:4] == b"RIFF" for name in named - {None})
    # A label is a label without its image; who trains on images has no use for one.
    assert len(rows) == {"labels": 28, "unpaired": 10}[format]
    assert (None in named) == (format == "labels")


@pytest.mark.parametrize(
    "format", ["unpaired", "preference", "pickapic", "labelstudio", "argilla", "hpd-test", "labels"]
)
def test_an_image_that_is_gone_is_in_no_row_that_needs_it(fetch, format, labelled):
    for image in Generation.objects.filter(position=0):
        paths.data(image.image).unlink()
    container = next(
        c for c in ("parquet-images", "json-images", "zip-json") if c in formats.FORMATS[format].containers
    )
    data = fetch(format, container)
    if container == "parquet-images":
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
        assert (None in [r[name] for r in rows for name in formats.FORMATS[format].images]) == (format == "labels")
    elif container == "json-images":
        assert all(row["data"]["position"] for row in json.loads(data))
    else:
        packed = zipfile.ZipFile(io.BytesIO(data))
        names = str(json.loads(packed.read(f"{formats.FORMATS[format].file}.json")))
        assert "/0.webp" not in names and "stars-1-0" not in names
        assert packed.read("missing.txt")


def test_memory_does_not_grow_with_the_number_of_groups(project, ann, monkeypatch):
    monkeypatch.setattr(records, "CHUNK", 20)

    def add(count):
        groups = Group.objects.bulk_create(
            Group(
                project=project,
                prompt=project.prompts.first(),
                version=project.active_version,
                state="done",
                first_seed=0,
                size=4,
            )
            for _ in range(count)
        )
        images = Generation.objects.bulk_create(
            Generation(group=g, position=i, seed=i, image="x", width=1, height=1) for g in groups for i in range(4)
        )
        Label.objects.bulk_create(Label(generation=g, annotator=ann, liked=g.position < 2) for g in images)
        quality.settle_groups(project, groups)

    def peak():
        chosen = formats.FORMATS["pickapic"]

        def rows():
            for n, group in enumerate(records.records(project, records.Filter())):
                if n % 20 == 0:
                    gc.collect()  # garbage in cycles waits for its time otherwise, longest on SQLite
                yield from chosen.rows(group, formats.in_archive)

        gc.collect()
        gc.freeze()  # what was there before is not looked through again and again
        tracemalloc.start()
        size = sum(len(part) for part in writers.parquet(rows(), chosen.schema, size=100))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        gc.unfreeze()
        return highest, size

    add(100)
    peak()
    small, first = peak()
    add(300)
    large, second = peak()
    assert second > 3 * first
    assert large < 1.3 * small
