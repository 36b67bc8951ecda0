"""Groups whose prompt changed an image, and images that are not square: all fits the screen, the input image stands above
them, and while its key is held it is in place of each."""

import io
import os

import pytest
from PIL import Image

from tests.e2e.helpers import CHROMIUM, faults, fits, picture
from webapp.campaigns.models import InputImage
from webapp.labelling import generation
from webapp.labelling.models import Group
from webapp.lib import paths, storage

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")
DIGEST = "1" * 64
WIDE = (256, 96)


@pytest.fixture
def changed(site):
    """Groups of wide images that were made of one."""

    def webp(size, colour):
        data = io.BytesIO()
        Image.new("RGB", size, colour).save(data, "WEBP")
        return data.getvalue()

    project = site.project
    InputImage.objects.create(project=project, digest=DIGEST, width=256, height=96)
    storage.store().write(paths.input_image(DIGEST), webp(WIDE, (200, 60, 40)))
    project.prompts.update(input_image=DIGEST)
    project.ready_target = project.groups.filter(state="ready").count() + 2
    project.save()
    for group in generation.top_up(project.pk):
        claimed = generation.claim_group_for_generation(group.pk, "test")
        for i in range(group.size):
            storage.store().write(paths.image(project.pk, group.pk, i), webp(WIDE, (40 * i, 120, 200)))
        assert generation.complete_group(group.pk, claimed.token, [WIDE] * group.size)
    Group.objects.exclude(input_image=DIGEST).delete()
    return site


@pytest.mark.parametrize(("name", "width", "height"), [("phone", 360, 740), ("desk", 1280, 800)])
def test_the_input_image_above_and_in_place_of_each(changed, name, width, height):
    page = changed.rate(changed.context(changed.person("ann"), viewport={"width": width, "height": height}))
    page.locator("#input-bar").wait_for()
    boxes = [tile.bounding_box() for tile in page.locator(".tile-image > img:not(.input-over)").all()]
    assert len(boxes) == 4 and all(abs(box["width"] / box["height"] - 256 / 96) < 0.05 for box in boxes)
    assert fits(page)
    over = page.locator(".input-over").first
    assert not over.is_visible()
    page.keyboard.down("o")
    assert over.is_visible() and page.locator("#compare").get_attribute("aria-pressed") == "true"
    picture(page, f"input-image-{name}", whole=False)
    page.keyboard.up("o")
    assert not over.is_visible()
    page.locator("#compare").click()
    assert over.is_visible()
    page.locator("#compare").click()
    assert not over.is_visible()
    assert faults(page) == []
    picture(page, f"input-image-{name}-before", whole=False)
