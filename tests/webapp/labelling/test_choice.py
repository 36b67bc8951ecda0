"""Which prompts are asked about next: those that teach, and none never."""

import random
from collections import Counter

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from webapp.campaigns.models import Prompt
from webapp.campaigns.services import add_prompts
from webapp.labelling import choice, generation
from webapp.labelling.models import Group
from webapp.quality.models import Consensus

TAGS = dict.fromkeys(range(10), "solved") | dict.fromkeys(range(10, 20), "open")


@pytest.mark.parametrize(
    ("rewards", "value"),
    [
        ([1, 1, 1], 0),
        ([1, 0], 1),
        ([1, 0, 0, 0], 0.75),
        ([0.5, 0.5, None], 0),
        ([0.75, 0.25], 0.25),
        ([None], 0),
        ([], 0),
    ],
)
def test_the_spread_is_one_when_rewards_are_halved(rewards, value):
    assert choice.spread(rewards) == pytest.approx(value)


def test_before_anything_is_known_all_prompts_are_equal():
    assert set(choice.chances(TAGS, []).values()) == {1.0}
    assert choice.chances({}, []) == {}


def test_a_tag_that_teaches_nothing_is_asked_about_less_and_never_not_at_all():
    found = choice.chances(TAGS, [(n, 0.0) for n in range(8)] + [(10 + n, 1.0) for n in range(8)])
    assert {found[n] for n in range(8)} == {choice.FLOOR}
    assert found[9] == choice.FLOOR  # never shown, but of a kind that is solved
    assert found[19] == found[10] == 1.0


def test_a_prompt_is_judged_by_itself_once_it_has_groups_of_its_own():
    silent = [(0, 0.0)] * 6
    others = [(n, 0.8) for n in range(1, 10) for _ in range(3)]
    found = choice.chances(dict.fromkeys(range(11), ""), silent + others)
    assert found[0] == choice.FLOOR
    assert found[10] > 0.9  # a new one is as the others
    one = choice.chances(dict.fromkeys(range(11), ""), silent[:1] + others)
    assert choice.FLOOR < one[0] < one[10]  # a single silent group is no proof


def test_prompts_that_are_gone_say_nothing():
    assert choice.chances(TAGS, [(99, 0.0)] * 50) == choice.chances(TAGS, [])


def test_prompts_are_drawn_in_proportion_and_none_twice_at_once():
    chance, rng, counts = {n: 0.25 if n % 2 else 1.0 for n in range(40)}, random.Random(2), Counter()
    for _ in range(2000):
        counts.update(choice.draw(chance, 1, rng))
    assert sum(counts[n] for n in range(1, 40, 2)) / 2000 == pytest.approx(0.2, abs=0.03)
    assert min(counts[n] for n in range(40)) > 5
    assert len(set(choice.draw(chance, 40, rng))) == 40
    assert Counter(choice.draw(dict.fromkeys("abc", 1.0), 6, rng)) == dict.fromkeys("abc", 2)


def test_the_same_randomness_draws_the_same_prompts():
    chance = choice.chances(TAGS, [(3, 0.0), (12, 0.7)])
    draws = [choice.draw(chance, 8, random.Random(7)) for _ in range(2)]
    assert draws[0] == draws[1]
    assert choice.draw({}, 5, random.Random(7)) == []


def labelled(project, prompt, rewards, state="done"):
    group = Group.objects.create(
        project=project, prompt=prompt, version=project.active_version, state=state, first_seed=1, size=4
    )
    values = {"signal": len(set(rewards)) > 1, "people": 1, "labelled_at": timezone.now()}
    return Consensus.objects.create(group=group, project=project, rewards=rewards, **values)


@pytest.fixture
def learned(project):
    """Four prompts of a tag that is always liked, and four of one that is not; all shown three times."""
    for n, prompt in enumerate(project.prompts.order_by("pk")):
        prompt.metadata = {"tag": "solved" if n < 4 else "open"}
        prompt.save()
        for _ in range(3):
            labelled(project, prompt, [1, 1, 1, 1] if n < 4 else [1, 0, 0, 1])
    return project


def fill(project, count, seed=0):
    project.ready_target = count
    project.save()
    return generation.top_up(project.pk, rng=random.Random(seed))


def test_the_queue_is_filled_with_prompts_that_teach(learned):
    groups = fill(learned, 4)
    kinds = Counter(g.prompt.metadata["tag"] for g in groups)
    assert kinds["open"] >= 3
    even = (0.25 + 1) / 2
    for group in groups:
        assert group.chance == pytest.approx((0.25 if group.prompt.metadata["tag"] == "solved" else 1) / even)


def test_weighted_by_one_over_their_chance_groups_stand_for_all_prompts(learned):
    weights = Counter()
    for seed in range(60):
        (group,) = fill(learned, 1, seed)
        weights[group.prompt.metadata["tag"]] += 1 / group.chance
        Group.objects.filter(pk=group.pk).delete()
    assert weights["solved"] / (weights["solved"] + weights["open"]) == pytest.approx(0.5, abs=0.12)


def test_the_same_randomness_queues_the_same_prompts(learned):
    def prompts():
        groups = fill(learned, 5)
        Group.objects.filter(pk__in=[g.pk for g in groups]).delete()
        return [g.prompt_id for g in groups]

    assert prompts() == prompts()


def test_a_new_prompt_is_as_likely_as_others_of_its_kind(learned):
    rows = [("a comet", "odd"), ("x", "open"), ("y", "solved")]
    add_prompts(learned, [{"prompt": text, "metadata": {"tag": tag}} for text, tag in rows])
    learned.prompts.filter(text="a comet").update(metadata={"tag": ["odd"]})  # as it could be stored once
    chances = {g.prompt.text: g.chance for g in fill(learned, 11)}
    assert chances["x"] == pytest.approx(chances["7 stars"], rel=0.2)
    assert chances["y"] == chances["0 stars"] < chances["x"]
    assert chances["a comet"] >= chances["y"]


def test_flagged_groups_say_nothing(learned):
    before = {g.prompt_id: g.chance for g in fill(learned, 8)}
    Group.objects.filter(state="queued").delete()
    for prompt in learned.prompts.filter(metadata__tag="open"):
        for _ in range(9):
            labelled(learned, prompt, [0, 0, 0, 0], state="flagged")
    assert {g.prompt_id: g.chance for g in fill(learned, 8)} == before


def test_only_the_newest_groups_are_read(learned, monkeypatch):
    monkeypatch.setattr(generation, "LOOKED_BACK", 4)
    for prompt in learned.prompts.filter(metadata__tag="open"):
        labelled(learned, prompt, [1, 1, 1, 1])  # the last four: now these are silent
    with CaptureQueriesContext(connection) as captured:
        groups = fill(learned, 8)
    assert len([q for q in captured.captured_queries if "LIMIT 4" in q["sql"]]) == 1
    chances = {g.prompt.metadata["tag"]: g.chance for g in groups}
    assert chances["open"] < chances["solved"]


def test_a_project_without_prompts_queues_nothing(project):
    Prompt.objects.all().delete()
    assert generation.top_up(project.pk) == []
