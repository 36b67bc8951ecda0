"""An admin brings own images in: files are chosen, the report says what became of each, and a person rates the group."""

import json
import os

import pytest

from tests.e2e.helpers import CHROMIUM, choose, faults, fits, picture
from tests.own_images import archive
from tests.own_images import picture as image
from webapp.campaigns.models import Role
from webapp.labelling import generation
from webapp.labelling.models import Group

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")


def test_images_come_in_and_are_rated(site, tmp_path):
    site.ready(1)  # whose size tells that of the model's images
    boss, ann = site.person("boss", Role.ADMIN), site.person("ann")
    rows = [{"file_name": f"{n}.png", "prompt": "שני כוכבים"} for n in range(3)]
    files = {f"{n}.png": image(n) for n in range(3)} | {"metadata.jsonl": "\n".join(map(json.dumps, rows))}
    files |= {"alone.jpg": image(9, (160, 90), "JPEG"), "alone.txt": "a lonely star", "notes.pdf": b"%PDF-1.4"}
    (tmp_path / "own.zip").write_bytes(archive(files))
    page = site.context(boss).new_page()
    page.goto(site.url(""))
    choose(page, "Project", "Own images")
    page.get_by_role("heading", name="What they may teach").wait_for()
    wrong = faults(page)
    page.get_by_label("Files").set_input_files(tmp_path / "own.zip")
    page.get_by_role("button", name="Bring in").click()
    page.get_by_role("heading", name="What became of each file").wait_for()
    told = page.get_by_role("status").inner_text()
    assert "1 group, 3 images." in told and "1 image is left over." in told and "1 file was passed over." in told
    why = page.get_by_role("listitem").filter(has_text="notes.pdf").inner_text()
    assert why == "notes.pdf · passed over · its content is PDF; PNG, JPEG and WebP images are taken"
    wrong += faults(page)
    page.emulate_media(color_scheme="light")
    picture(page, "own-images")
    page.set_viewport_size({"width": 360, "height": 800})
    assert fits(page)
    picture(page, "own-images-phone")
    page.get_by_label("Files").set_input_files(tmp_path / "own.zip")
    page.get_by_role("button", name="Bring in").click()
    page.get_by_text("3 files were there already.").wait_for()
    assert Group.objects.filter(version=None).count() == 1 and wrong == []

    group = Group.objects.get(version=None)
    claimed = generation.claim_group_for_generation(group.pk, "test")  # as a worker that has encoded them
    generation.complete_group(group.pk, claimed.token, [])
    Group.objects.exclude(pk=group.pk).update(state="superseded")
    rating = site.rate(site.context(ann))
    assert rating.locator("#grid .tile-image").count() == 3 and "שני כוכבים" in rating.locator("main").inner_text()
