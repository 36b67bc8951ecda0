"""Input images: who adds one, what is kept of it, and that it goes with its prompt to groups, pages, exports and rounds."""

import hashlib
import io
import json
from datetime import timedelta

import pytest
from PIL import Image

from tests.webapp import acting
from tests.webapp.conftest import make_ready
from webapp.api.services import create_token
from webapp.campaigns import inputs, services
from webapp.campaigns.models import InputImage, Prompt
from webapp.exports import records
from webapp.exports.rows import labels_rows
from webapp.lib import paths, storage
from webapp.operations import garbage
from webapp.rounds import comparisons
from webapp.rounds import services as rounds
from webapp.rounds.models import ModelVersion


def png(width=96, height=64, colour=(200, 30, 30), **options):
    data = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(data, "PNG", **options)
    return data.getvalue()


@pytest.fixture
def klein(project, tmp_path):
    """The project's model changes images."""
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "Flux2KleinPipeline"}))
    return project


@pytest.fixture
def changed(klein, boss):
    """(project, its image), all of whose prompts change it."""
    klein.prompts.all().delete()
    image = inputs.add(klein, png(), boss)
    rows = [{"prompt": f"make it {colour}", "metadata": {"input_image": image.digest}} for colour in ("red", "blue")]
    assert services.add_prompts(klein, rows, by=boss) == 2
    return klein, image


def test_pixels_are_kept_once_and_nothing_else(klein, boss):
    about = Image.Exif()
    about[0x010E] = "where it was taken"
    first, again = inputs.add(klein, png(exif=about), boss), inputs.add(klein, png(), boss)
    assert first == again and InputImage.objects.count() == 1
    data = storage.store().read(paths.input_image(first.digest))
    assert hashlib.sha256(data).hexdigest() == first.digest and b"where it was" not in data
    with Image.open(io.BytesIO(data)) as kept:
        assert (kept.format, kept.size, kept.convert("RGB").getpixel((3, 3))) == ("WEBP", (96, 64), (200, 30, 30))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GIF89a", "no whole PNG or WebP"),
        (b"\xff\xd8\xff\xe0" + b"x" * 100, "no whole PNG or WebP"),
        (png(63, 64), "a side needs at least 64"),
        (png(64, 577), "more than 8 times the other"),
        (png()[:60], "image: "),
        (b"", "no whole PNG or WebP"),
    ],
)
def test_what_is_no_such_image_is_refused(klein, boss, data, said):
    with pytest.raises(services.CampaignError, match=f"image: .*{said}" if said != "image: " else said):
        inputs.add(klein, data, boss)
    assert not InputImage.objects.exists()


def test_only_models_that_change_images_have_them(project, boss):
    with pytest.raises(services.CampaignError, match="makes images of prompts alone"):
        inputs.add(project, png(), boss)


def test_an_admin_adds_an_image_with_prompts(client, klein, boss, ann):
    client.force_login(boss)
    assert 'name="texts"' in client.get("/p/stars/prompts/").content.decode()
    form = {"texts": "make it red\n\nmake it blue", "split": "train"}
    client.post("/p/stars/inputs/", {**form, "image": io.BytesIO(png())})
    image = InputImage.objects.get()
    own = Prompt.objects.exclude(input_image="")
    assert {(p.text, p.input_image) for p in own} == {("make it red", image.digest), ("make it blue", image.digest)}
    # The same words for another image are another prompt.
    client.post("/p/stars/inputs/", {**form, "image": io.BytesIO(png(colour=(0, 0, 9)))})
    assert Prompt.objects.filter(text="make it red").count() == 2
    page = client.get("/p/stars/prompts/").content.decode()
    assert page.count(f"inputs/{image.digest}.webp") == 2
    assert client.get(f"/p/stars/inputs/{image.digest}.webp")["Content-Type"] == "image/webp"
    for wrong in ({**form, "image": io.BytesIO(b"GIF89a")}, {**form, "texts": "", "image": io.BytesIO(png())}):
        refused = client.post("/p/stars/inputs/", wrong)
        assert refused.status_code == 400 and "field-error" in refused.content.decode()
    assert InputImage.objects.count() == 2
    client.force_login(ann)
    assert client.get(f"/p/stars/inputs/{image.digest}.webp").status_code == 404


def test_a_prompt_names_only_images_of_its_project(klein, boss):
    with pytest.raises(services.CampaignError, match="row 1: input_image: 'ab' is no image of this project"):
        services.add_prompts(klein, [{"prompt": "make it red", "metadata": {"input_image": "ab"}}])


def test_a_group_keeps_the_image_and_its_size(client, changed, ann, boss):
    project, image = changed
    (group,) = make_ready(project)
    assert (group.input_image, group.image_size) == (image.digest, "96x64")
    client.force_login(ann)
    given = client.get("/p/stars/groups/next/").json()["groups"][0]
    assert client.get(given["input"]).content == storage.store().read(paths.input_image(image.digest))
    client.force_login(boss)  # to whom this group was not given
    assert client.get(given["input"]).status_code == 404


def test_exports_rounds_and_copies_carry_it(changed, boss):
    project, image = changed
    (group,) = make_ready(project)
    acting.submit(boss, project, group, [1, 0, 0, 1])
    (record,) = records.records(project, records.Filter())
    assert {row["input_image"] for row in labels_rows(record, lambda *_: None)} == {image.digest}
    training = rounds.claim_round(rounds.start_round(project, {}, idempotency_key="k").pk, "worker")
    spec = json.loads(rounds.write_spec(training).read_text())
    assert {(line["input_image"], line["size"]) for line in spec["train_prompts"]} == {(image.digest, "96x64")}
    assert spec["inputs"] == str(paths.data(paths.INPUTS))
    (line,) = map(json.loads, open(spec["groups_file"]))  # noqa: SIM115
    assert line["metadata"]["input_image"] == image.digest
    copy = services.clone_project(project, "", "Copy", boss)
    assert set(copy.prompts.values_list("input_image", flat=True)) == {image.digest} == {copy.inputs.get().digest}


def test_pairs_have_it(changed, boss):
    project, image = changed
    other = ModelVersion.objects.create(project=project, number=2, path="x", parent=project.active_version)
    test = comparisons.start(project, [1, other.number], boss)
    assert {(p.input_image, p.image_size) for p in test.pairs.all()} == {(image.digest, "96x64")}


def test_garbage_keeps_what_a_row_names(changed):
    _project, image = changed
    storage.store().write(paths.input_image("0" * 64), b"left over")
    freed = garbage.collect(older_than=timedelta(seconds=-5), dry_run=False)
    assert freed["strays"].files == 1
    assert storage.store().exists(paths.input_image(image.digest))
    assert not storage.store().exists(paths.input_image("0" * 64))


def test_the_api_takes_and_gives_them(client, klein, boss):
    _token, text = create_token(klein, boss, "t", ["admin"])
    head, url = {"HTTP_AUTHORIZATION": f"Bearer {text}"}, "/api/v1/projects/stars"
    made = client.post(f"{url}/inputs/file", {"file": io.BytesIO(png())}, **head).json()
    assert (made["width"], made["height"]) == (96, 64)
    assert client.get(made["url"], **head).content == storage.store().read(paths.input_image(made["digest"]))
    assert client.get(f"{url}/inputs", **head).json()["items"] == [made]
    body = {"prompts": [{"prompt": "make it red", "metadata": {"input_image": made["digest"]}}]}
    assert client.post(f"{url}/prompts", json.dumps(body), content_type="application/json", **head).json()["new"] == 1
    told = client.get(f"{url}/prompts", **head).json()["items"][-1]
    assert (told["input_image"], told["metadata"]) == (made["digest"], {})
    klein.prompts.filter(input_image="").delete()
    (group,) = make_ready(klein)
    assert client.get(f"{url}/groups/{group.pk}", **head).json()["input_image"] == made["digest"]
    task = client.post(f"{url}/tasks", **head).json()["items"][0]
    assert client.get(task["input"], **head).status_code == 200
    refused = client.post(f"{url}/inputs/file", {"file": io.BytesIO(b"GIF89a")}, **head)
    assert refused.status_code == 400 and refused.json()["detail"].startswith("image:")
