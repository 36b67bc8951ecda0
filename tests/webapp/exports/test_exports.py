"""Every export, read back by the library that it is for."""

import gc
import io
import json
import tracemalloc
import zipfile
from datetime import timedelta

import pyarrow.parquet as pq
import pytest
from django.utils import timezone

from tests.webapp import acting
from webapp.exports import formats, identity, records, writers
from webapp.labelling import decisions
from webapp.labelling.models import Generation, Group, GroupDecision, Label
from webapp.lib import bounds, paths
from webapp.quality import services as quality

PICKAPIC = (
    "are_different best_image_uid caption created_at has_label image_0_uid image_0_url image_1_uid image_1_url jpg_0 "
    "jpg_1 label_0 label_1 model_0 model_1 ranking_id user_id num_example_per_prompt"
).split()


@pytest.fixture
def fetch(client, boss, labelled):
    """fetch(format, container, **filters): the downloaded bytes."""
    client.force_login(boss)

    def get(format, container="jsonl", **filters):
        answer = client.get("/p/stars/export/download/", {"format": format, "container": container, **filters})
        assert answer.status_code == 200, answer.content.decode()
        return b"".join(answer.streaming_content)

    return get


@pytest.fixture
def load(fetch, tmp_path):
    """load(format, container): the export through `datasets.load_dataset`."""
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
def test_unpaired_is_what_trl_expects(load, container):
    data = load("unpaired", container)
    assert data.column_names == ["prompt", "completion", "label"]
    assert data.features["label"].dtype == "bool" and data.features["prompt"].dtype == "string"
    # The third group's image 2 is split evenly, so it is neither.
    assert sum(data["label"]) == 2 + 4 + 1
    assert len(data) == 4 + 4 + 3
    assert data[0]["completion"].startswith("http://testserver/p/stars/images/")


def test_preference_pairs_likes_with_dislikes_of_a_group(load, labelled):
    data = load("preference", "parquet")
    assert data.column_names == ["prompt", "chosen", "rejected"]
    assert len(data) == 2 * 2 + 0 + 1 * 2
    urls = {f"http://testserver/p/stars/images/{g.pk}.webp": g for g in Generation.objects.all()}
    for row in data:
        chosen, rejected = urls[row["chosen"]], urls[row["rejected"]]
        assert chosen.group_id == rejected.group_id
        assert chosen.group.prompt.text == row["prompt"]


def test_images_inside_parquet_are_decoded_by_datasets(load):
    data = load("preference", "parquet-images")
    assert type(data.features["chosen"]).__name__ == "Image"
    assert data[0]["chosen"].size == (128, 128)
    assert len(load("labels", "parquet-images")) == 28


@pytest.mark.parametrize("container", ["jsonl", "parquet", "parquet-images"])
def test_pickapic_has_the_columns_of_v2(load, container, project, ann):
    data = load("pickapic", container)
    assert data.column_names == PICKAPIC
    assert len(data) == 2 * 4 + 4 + 3
    for row in data:
        assert row["label_0"] + row["label_1"] == 1
        assert row["best_image_uid"] == row[f"image_{int(row['label_1'])}_uid"]
        assert int(row["image_0_uid"].rsplit("-")[-1]) < int(row["image_1_uid"].rsplit("-")[-1])
    assert {
        row["num_example_per_prompt"]
        for row in data
        if row["user_id"] == identity.number(identity.pseudonym(project, ann.pk))
    } == {4}
    if container == "parquet-images":
        assert data[0]["jpg_0"].size == (128, 128)


def test_hpd_ranks_each_group_and_each_person(load):
    data = load("hpd", "jsonl")
    assert data.column_names == ["prompt", "image_path", "rank", "human_preference", "raw_annotations"]
    assert data[0]["rank"] == [1, 2, 2, 1]
    assert data[1]["rank"] == [1, 1, 1, 1]
    assert (data[2]["rank"], data[2]["human_preference"]) == ([1, 3, 2, 3], [1.0, 0.0, 0.5, 0.0])
    assert len({a["user_hash"] for row in data for a in row["raw_annotations"]}) == 2
    assert load("hpd", "parquet")[2]["raw_annotations"] == data[2]["raw_annotations"]


def test_label_studio_tasks_have_the_documented_keys(fetch, labelled):
    tasks = json.loads(fetch("labelstudio"))
    assert [t["id"] for t in tasks] == [g.pk for g in labelled]
    task = tasks[0]
    assert set(task) == {"id", "data", "annotations", "predictions"}
    assert {"prompt", "image_0", "image_3"} <= set(task["data"])
    assert len(task["annotations"]) == 2
    for annotation in task["annotations"]:
        keys = "result was_cancelled ground_truth lead_time created_at updated_at"
        assert set(annotation) == set(keys.split())
        assert annotation["lead_time"] == 4
        for result in annotation["result"]:
            assert set(result) == {"id", "from_name", "to_name", "type", "value", "meta"}
            assert result["to_name"] in task["data"]
            assert result["value"]["choices"][0] in ("like", "dislike")
    assert task["predictions"][0]["model_version"] == "scenes"
    assert task["predictions"][0]["score"] == pytest.approx(0.5)
    config = formats.labelstudio_config(4)
    assert all(f'name="{r["from_name"]}"' in config for r in task["annotations"][0]["result"])


def test_label_studios_own_library_reads_the_tasks(fetch):
    # Not among the pinned packages: its OpenCV is older than the product's. `pip install label-studio-sdk` to run this.
    label_interface = pytest.importorskip("label_studio_sdk.label_interface")
    interface = label_interface.LabelInterface(formats.labelstudio_config(4))
    interface.validate()
    for task in json.loads(fetch("labelstudio")):
        assert all(task["data"].get(o.value_name) for o in interface.objects if o.value_is_variable)
        for one in task["annotations"]:
            assert interface._validate_object(one, return_errors=True) == []
        for one in task["predictions"]:
            assert interface.validate_prediction(one, return_errors=True) == []


def test_the_labels_export_keeps_the_whole_provenance(load, labelled, project):
    data = load("labels", "parquet")
    assert data.column_names == formats.FORMATS["labels"].schema.names
    assert len(data) == 2 * 12 + 4
    row = data[0]
    image = Generation.objects.get(group=row["group"], position=row["position"])
    assert (row["seed"], row["version"], row["steps"]) == (image.seed, 1, 4)
    assert {r["oracle"] for r in data if r["annotator"] is None} == {"scenes"}


def test_filters_leave_out_what_they_say(fetch, project, labelled):
    def groups(**filters):
        return {json.loads(line)["group"] for line in fetch("labels", **filters).splitlines()}

    first, second, third = (g.pk for g in labelled)
    assert groups(signal="on") == {first, third}
    assert groups(version="1", split="train") == {first, second, third}
    assert groups(split="test") == set()
    bob = identity.pseudonym(project, GroupDecision.objects.filter(user__username="bob").first().user_id)
    assert {json.loads(r)["annotator"] for r in fetch("labels", annotator=bob).splitlines()} == {bob}
    # With one person's labels, signal still means the rewards of all: bob alone likes one image of the third group.
    assert groups(annotator=bob, signal="on") == {first, third}
    Label.objects.filter(generation__group=first).update(created_at=timezone.now() - timedelta(days=9))
    today = timezone.now().date()
    assert groups(since=today) == {second, third}
    assert groups(until=today - timedelta(days=1)) == {first}
    # With part of the labels the reward is theirs alone: bob dislikes image 2 of the third group.
    assert [r["label"] for r in map(json.loads, fetch("unpaired", annotator=bob).splitlines())].count(True) == 7


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
    for query in ("format=pdf", "format=labels&version=9", "format=hpd&container=parquet-images"):
        assert client.get(f"/p/stars/export/download/?{query}").status_code == 400
    page = client.get("/p/stars/export/?format=labelstudio&container=parquet").content.decode()
    assert "has no Parquet form" in page


@pytest.mark.parametrize("container", ["zip-jsonl", "zip-parquet"])
def test_an_archive_has_every_image_that_its_rows_name(fetch, container, project, labelled):
    lost = Generation.objects.get(group=labelled[1], position=2)
    (project_file := paths.data(lost.image)).unlink()
    packed = zipfile.ZipFile(io.BytesIO(fetch("unpaired", container)))
    assert packed.testzip() is None
    ending = container.removeprefix("zip-")
    data = packed.read(f"data.{ending}")
    rows = (
        [json.loads(line) for line in data.splitlines()]
        if ending == "jsonl"
        else pq.read_table(io.BytesIO(data)).to_pylist()
    )
    named = {row["completion"] for row in rows}
    missing = set(packed.read("missing.txt").decode().split())
    assert missing == {f"images/{lost.group_id}/2.webp"}
    assert named - missing <= set(packed.namelist())
    assert packed.read(sorted(named - missing)[0])[:4] == b"RIFF"
    assert not project_file.exists()


def test_label_studios_archive_has_its_interface(fetch):
    packed = zipfile.ZipFile(io.BytesIO(fetch("labelstudio", "zip-jsonl")))
    assert b'<Choices name="like_3"' in packed.read("labelling-interface.xml")
    assert packed.read(json.loads(packed.read("data.json"))[0]["data"]["image_0"])[:4] == b"RIFF"


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
                yield from chosen.rows(group, writers.in_archive)

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
