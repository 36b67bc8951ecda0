"""More images are made of a group than are shown: what is kept of the choice, and estimates that undo it."""

import json
import random

import pytest

from tests.webapp import acting
from webapp.campaigns.prompts import like_rates
from webapp.campaigns.services import CampaignError, update_project
from webapp.labelling import generation, queries
from webapp.labelling.choice import share
from webapp.quality import counts
from webapp.rounds import forecasts, services

CHANCES = [0.25, 0.5, 0.5, 0.5]


@pytest.fixture
def chosen(project):
    """A group of which twelve images were made and four are shown."""
    update_project(project, None, images_made=12)
    project.refresh_from_db()
    group = generation.create_group(project, project.prompts.first().pk, random.Random(0))
    assert (group.size, group.made, len(group.seeds)) == (4, 12, 12)
    claimed = generation.claim_group_for_generation(group.pk, "test")
    seeds = [group.first_seed + n for n in (1, 4, 7, 11)]
    assert generation.complete_group(group.pk, claimed.token, [(8, 8)] * 4, seeds=seeds, inclusion=CHANCES)
    group.refresh_from_db()
    return group


def test_seeds_and_chances_are_kept(project, chosen):
    images = list(chosen.generations.all())
    assert [image.seed - chosen.first_seed for image in images] == [1, 4, 7, 11]
    assert [image.inclusion for image in images] == CHANCES
    assert queries.inclusions([chosen.pk]) == {chosen.pk: CHANCES}


def test_rates_are_those_of_all_images_made(project, chosen, ready, ann, person):
    acting.submit(ann, project, chosen, [1, 0, 0, 0])  # weights 4, 2, 2, 2
    assert counts.like_rates(project)[0]["rate"] == pytest.approx(0.4)
    assert like_rates([chosen.prompt_id])[chosen.prompt_id] == [(1, pytest.approx(0.4), 4)]
    assert forecasts._likes(project.active_version, False) == [(pytest.approx(0.4), 1)]
    counts.count_versions(project)
    assert counts.like_rates(project)[0]["rate"] == pytest.approx(0.4)
    project.version_counts.update(weight=None, liked=None)  # counted by the version before
    assert counts.like_rates(project)[0]["rate"] == pytest.approx(0.25)
    chosen.refresh_from_db()
    chosen.state = "flagged"
    chosen.save()
    assert counts.like_rates(project) == []


def test_a_round_is_told_the_chances(project, chosen, ready, ann, tmp_path):
    update_project(project, None, images_made=None)
    project.refresh_from_db()
    (plain,) = ready()
    for group in (chosen, plain):
        acting.submit(ann, project, group, [1, 0, 0, 0])
    training = services.start_round(project, {}, idempotency_key="k")
    services.write_spec(training, tmp_path / "round")
    lines = [json.loads(line) for line in (tmp_path / "round" / "groups.jsonl").read_text().splitlines()]
    assert [line.get("inclusion") for line in lines] == [CHANCES, None]


def test_a_share_leaves_out_what_nobody_knows():
    assert share([1, 0, None, 0], CHANCES) == pytest.approx(4 / 8)
    assert share([1, 0, 0, 0]) == 0.25
    assert share([None], [0.5]) is None


def test_more_cannot_be_shown_than_made(project):
    with pytest.raises(CampaignError, match="images_made: give 4"):
        update_project(project, None, images_made=3)
    update_project(project, None, images_made=4)
    group = generation.create_group(project, project.prompts.first().pk, random.Random(0))
    assert (group.made, len(group.seeds)) == (0, 4)
