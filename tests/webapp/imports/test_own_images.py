"""Own images become groups, once; what became of each file is said."""

import io
import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image

from tests.own_images import GRAPH, archive, noted, picture
from webapp.campaigns.models import Prompt
from webapp.imports.models import ImageImport, ImportedImage
from webapp.imports.services import ImagesError
from webapp.labelling import generation, leases
from webapp.labelling.models import Generation, Group, GroupState
from webapp.lib import storage


def folder(count=3):
    """Images of one prompt with a metadata file, and one that is alone with another."""
    rows = [{"file_name": f"{n}.png", "prompt": "a red star"} for n in range(count)]
    rows.append({"file_name": "alone.jpg", "caption": "a blue star"})
    files = {f"d/{n}.png": picture(n) for n in range(count)}
    files |= {"d/alone.jpg": picture(90, (120, 80), "JPEG"), "d/metadata.jsonl": "\n".join(map(json.dumps, rows))}
    return archive(files)


def test_images_of_a_prompt_become_groups(bring, stars):
    done, report = bring(folder(9))
    assert (done.groups, done.images) == (3, 9)
    groups = Group.objects.order_by("pk")
    assert [g.size for g in groups] == [3, 3, 3]  # as even as they can be, of four at most
    assert {(g.version, g.first_seed, g.state, g.is_own) for g in groups} == {(None, None, GroupState.QUEUED, True)}
    assert report["d/0.png"] == ("taken", f"group {groups[0].pk}; resized from 96 × 96")
    assert report["d/alone.jpg"][0] == "left" and "the only image of its prompt" in report["d/alone.jpg"][1]
    assert set(report) == {f"d/{n}.png" for n in range(9)} | {"d/alone.jpg"}
    prompt = Prompt.objects.get(text="a red star")
    assert prompt.withdrawn_at is not None and prompt.shown == 0  # nothing is generated of it
    images = Generation.objects.all()
    assert {(i.width, i.height, i.seed) for i in images} == {(64, 64, None)}
    for image in images:
        with Image.open(io.BytesIO(storage.store().read(image.image))) as opened:
            assert (opened.format, opened.size) == ("WEBP", (64, 64))


def test_the_same_archive_adds_nothing(bring, stars):
    bring(folder())
    before = list(Generation.objects.values_list("pk", flat=True))
    done, report = bring(folder())
    assert done.pk is None and report["d/0.png"] == ("known", "")
    assert list(Generation.objects.values_list("pk", flat=True)) == before
    assert ImageImport.objects.count() == 1
    bring(folder(5))  # two more of the prompt
    assert ImportedImage.objects.count() == 5 and Group.objects.count() == 2


def test_a_new_prompt_is_used_where_that_is_wanted(bring, stars):
    bring({"a.png": picture(1), "b.png": picture(2)}, prompt="a green star", generate=True)
    assert Prompt.objects.get(text="a green star").withdrawn_at is None
    bring({"a.png": picture(1), "b.png": picture(2)}, prompt="1 stars")
    assert Prompt.objects.get(text="1 stars").withdrawn_at is None  # as it was


def test_prompts_come_from_tables_texts_and_notes_in_this_order(bring):
    parameters = "a red <lora:x:0.8> star\nNegative prompt: ugly\nSteps: 20, Sampler: Euler, Seed: 5, Size: 64x64"
    _done, report = bring(
        archive(
            {
                "1.png": noted(1, parameters=parameters),
                "2.png": noted(2, prompt=GRAPH),
                "3.png": noted(3, invokeai_metadata={"positive_prompt": "a red star"}),
                "4.png": noted(4, parameters=parameters),
                "4.txt": "a red star",
                "5.png": noted(5, parameters="other\nSteps: 1"),
                "metadata.csv": "file_name,text\n5.png,a red star\n",
                "6.png": picture(6),
            }
        )
    )
    tools = dict(ImportedImage.objects.values_list("name", "tool"))
    assert (
        tools.pop("1.png") == "AUTOMATIC1111" and tools.pop("2.png") == "ComfyUI" and tools.pop("3.png") == "InvokeAI"
    )
    assert {report[name][0] for name in ("4.png", "5.png")} == {"taken"} and set(tools.values()) == {""}
    prompts = set(Group.objects.values_list("prompt__text", flat=True))
    assert prompts == {"a red star"}
    assert report["6.png"] == ("skipped", "nothing says what its prompt is")


def test_nothing_of_a_file_is_served_again(bring, stars):
    secret = b"GPS 52.5 13.4"
    exif = Image.Exif()
    exif[0x010E] = secret.decode()
    exif[0x0112] = 6  # lies on its side
    jpeg = picture(1, (120, 80), "JPEG", exif=exif)
    _done, report = bring({"a.jpg": jpeg, "b.png": noted(2, Comment=secret.decode())}, prompt="a star")
    assert report["a.jpg"][1] == f"group {Group.objects.get().pk}; its middle, resized from 80 × 120"
    for image in Generation.objects.all():
        assert secret not in storage.store().read(image.image)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "I;16", "CMYK"])
def test_every_kind_of_pixels(bring, mode):
    form = "JPEG" if mode == "CMYK" else "PNG"
    done, report = bring(
        {"a": picture(1, form=form, mode=mode), "b": picture(2, form=form, mode=mode)}, prompt="a star"
    )
    assert done.images == 2, report


def test_what_people_must_not_see_and_what_is_no_image(bring, stars):
    stars.prompts.filter(text="0 stars").update(split="validation")
    _done, report = bring(
        archive(
            {
                "a.png": picture(1),
                "a.txt": "0 stars",
                "b.gif": picture(2, form="GIF"),
                "c.zip": archive({"x.png": picture(3)}),
                "d.png": b"no image",
                "e.jpg": picture(4, form="JPEG")[:-400],
                "f.png": picture(5, (8, 300)),
                "g.png": picture(6),
                "g.txt": "x" * 1001,
                "__MACOSX/._a.png": b"x",
                ".DS_Store": b"\0",
            }
        ),
        prompt="a star",
    )
    assert {name: outcome for name, (outcome, _) in report.items()} == dict.fromkeys(
        ["a.png", "b.gif", "c.zip", "d.png", "e.jpg", "f.png", "g.png"], "skipped"
    )
    assert "kept for validation or tests" in report["a.png"][1]
    assert "its content is GIF" in report["b.gif"][1] and "archive within an archive" in report["c.zip"][1]
    assert "cannot be decoded" in report["e.jpg"][1] and "a side has at least 16" in report["f.png"][1]
    assert "more than 1000 characters" in report["g.png"][1]
    assert not Group.objects.exists() and not ImageImport.objects.exists()


def test_all_of_it_or_nothing(bring, stars, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("webapp.labelling.pictures.keep", fail)
    with pytest.raises(OSError, match="disk full"):
        bring(folder())
    assert not Group.objects.exists() and not Prompt.objects.filter(text="a red star").exists()


def test_what_is_too_much_comes_with_the_next_one(bring, monkeypatch):
    monkeypatch.setattr("webapp.imports.reading.MOST_IMAGES", 2)
    _done, report = bring(folder(4))
    assert [report[f"d/{n}.png"][0] for n in range(4)] == ["taken", "taken", "skipped", "skipped"]
    _done, report = bring(folder(4))
    assert [report[f"d/{n}.png"][0] for n in range(4)] == ["known", "known", "taken", "taken"]


def test_an_archived_project_takes_none(bring, stars):
    from webapp.campaigns.services import set_archived

    set_archived(stars, True, by=None)
    stars.refresh_from_db()
    with pytest.raises(ImagesError, match="archived"):
        bring(folder())


def test_the_model_says_the_size_or_an_image_does(bring, stars, tmp_path, ready):
    (tmp_path / "model_index.json").unlink()
    with pytest.raises(ImagesError, match="size of the model's images is not known"):
        bring(folder())
    ready()
    bring(folder())
    assert Generation.objects.filter(group__version=None).first().width == 128


def test_people_rate_them_and_other_versions_leave_them_alone(bring, stars, ann, boss):
    bring(folder())
    (group,) = Group.objects.all()
    claimed = generation.claim_group_for_generation(group.pk, "w")
    assert generation.complete_group(group.pk, claimed.token, [])
    stars.ready_target = 0
    stars.save()
    generation.top_up(stars.pk)
    assert [g.pk for g in leases.lease_groups(ann, stars)] == [group.pk]
    assert generation.supersede_groups(stars, None) == 0


def test_the_page_brings_in_and_reports(client, boss, stars, django_capture_on_commit_callbacks):
    client.force_login(boss)
    page = client.get("/p/stars/own-images/").content.decode()
    assert "Not the student" in page
    sent = client.post("/p/stars/own-images/", {"files": SimpleUploadedFile("own.zip", folder()), "prompt": ""})
    assert sent.status_code == 302
    page = client.get(sent["Location"]).content.decode()
    assert "1 group" in page and "3 images" in page and "d/alone.jpg" in page and "left over" in page
    again = client.post("/p/stars/own-images/", {"files": SimpleUploadedFile("own.zip", folder())})
    assert again.status_code == 200 and "3 files were there already" in again.content.decode()
    wrong = client.post("/p/stars/own-images/", {"files": SimpleUploadedFile("own.zip", b"PK\x03\x04 no archive")})
    assert wrong.status_code == 400 and "does not end as a ZIP archive does" in wrong.content.decode()
    none = client.post("/p/stars/own-images/", {})
    assert none.status_code == 400 and "choose an archive or images" in none.content.decode()
    assert client.get("/p/stars/own-images/?report=99999").status_code == 404
