"""A card says what there is and what to do, and nobody sees what they may not. The dashboard begins with decisions."""

from tests.webapp import acting
from webapp.campaigns.models import Role
from webapp.labelling.models import Group
from webapp.quality.models import Consensus
from webapp.rounds.models import ModelVersion, TrainingRound


def test_an_annotators_card_has_only_what_they_were_given(client, project, ready, ann, person):
    mine, other = ready(2)
    client.force_login(ann)
    page = client.get("/").content.decode()
    assert "You have rated nothing here yet." in page and "<img" not in page and "wait for people" not in page
    acting.submit(person("bob"), project, other, [1, 0, 0, 0])
    acting.submit(ann, project, mine, [1, 0, 0, 0])
    TrainingRound.objects.create(project=project, number=3, base_version=project.active_version, total=9)
    page = client.get("/").content.decode()
    assert page.count("<img") == 4 and acting.task(ann, mine) in page
    assert "You rated 1 group today." in page and "Round 3" not in page and "/images/" not in page
    first = f"/p/stars/groups/{acting.task(ann, mine)}/0.webp?w=256"
    assert first in page and client.get(first).status_code == 200


def test_a_managers_card(client, project, ready, boss):
    client.force_login(boss)
    assert "No images yet. They appear here" in client.get("/").content.decode()
    (group,) = ready()
    TrainingRound.objects.create(
        project=project, number=3, base_version=project.active_version, total=9, step=4, state="running"
    )
    ModelVersion.objects.create(project=project, number=2, path="x")
    page = client.get("/").content.decode()
    for part in ("1 group waits for people.", "Round 3", 'value="4"', "Version 2 is ready to judge"):
        assert part in page
    assert f"/p/stars/images/{group.generations.first().pk}.webp?w=256" in page
    Group.objects.all().delete()
    project.prompts.all().delete()
    assert "It has no prompts yet." in client.get("/").content.decode()


def test_the_dashboard_begins_with_what_is_to_decide_and_tells_no_zeros(client, project, ready, ann, boss, person):
    client.force_login(boss)
    page = client.get("/p/stars/").content.decode()
    assert (
        "To decide" not in page and "No group was labelled in the last day." in page and "0 groups labelled" not in page
    )
    first, second = ready(2)
    acting.submit(ann, project, first, [1, 0, 0, 0])
    acting.flag_group(ann, project, second.pk, kind="broken", position=None, note="", idempotency_key="f")
    Consensus.objects.update(tie=True)
    ModelVersion.objects.create(project=project, number=2, path="x")
    page = client.get("/p/stars/").content.decode()
    decide, tiles, images = page.index("To decide"), page.index('class="tiles"'), page.index("Newest images")
    assert decide < tiles < images
    for part in ("Version 2 is ready to judge", "1 flagged group waits", "evenly split over 1 group"):
        assert decide < page.index(part) < tiles
    assert page[images:].count("<bdi>ann</bdi></span>") == 4  # the newest images with their labels
    assert "0.00" not in page
    client.force_login(person("rea", Role.REVIEWER))
    assert "start/" not in client.get("/p/stars/").content.decode()
