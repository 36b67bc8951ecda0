"""Simulated people of known reliability: the measurement finds them, and rewards follow it."""

import random

import pytest
from django.db.models import F

from tests.webapp import acting
from webapp.labelling import scoring
from webapp.labelling.models import Generation, Group, GroupDecision, Label
from webapp.quality import services
from webapp.quality.models import Consensus, LastLook, PersonQuality

# (P(like | good), P(dislike | bad))
PEOPLE = {"careful": (0.95, 0.95), "kind": (0.95, 0.6), "harsh": (0.6, 0.95), "coin": (0.5, 0.5)}


@pytest.fixture
def crowd(project, person):
    """120 groups of 4 rated by everybody; returns (people by name, {image: whether it is good})."""
    rng = random.Random(5)
    people = {name: person(name) for name in PEOPLE}
    prompt = project.prompts.first()
    groups = Group.objects.bulk_create(
        Group(project=project, prompt=prompt, version=project.active_version, state="done", first_seed=0, size=4)
        for _ in range(120)
    )
    images = Generation.objects.bulk_create(
        Generation(group=g, position=i, seed=i, image="x", width=1, height=1) for g in groups for i in range(4)
    )
    truth = {image.pk: rng.random() < 0.5 for image in images}
    labels = []
    for name, (like, dislike) in PEOPLE.items():
        for image in images:
            liked = rng.random() < like if truth[image.pk] else rng.random() >= dislike
            labels.append(Label(generation=image, annotator=people[name], liked=liked))
    Label.objects.bulk_create(labels)
    GroupDecision.objects.bulk_create(
        GroupDecision(
            group=g,
            user=user,
            outcome="submitted",
            seconds=0.4 if name == "coin" else 8,
            idempotency_key=f"{g.pk}",
        )
        for name, user in people.items()
        for g in groups
    )
    services.settle_groups(project, groups)
    return people, truth


def wrong(project, truth):
    """Images whose reward is on the wrong side of one half."""
    count = 0
    for found in Consensus.objects.filter(project=project).select_related("group"):
        for image, value in zip(found.group.generations.all(), found.rewards, strict=True):
            count += (value > 0.5) != truth[image.pk]
    return count


def test_reliability_bias_and_pace_are_found_and_rewards_improve(project, crowd):
    _, truth = crowd
    before = wrong(project, truth)
    quality = services.measure_project(project)
    found = {q.user.username: q for q in PersonQuality.objects.select_related("user")}
    for name, (like, dislike) in PEOPLE.items():
        assert found[name].like_accuracy == pytest.approx(like, abs=0.1), name
        assert found[name].dislike_accuracy == pytest.approx(dislike, abs=0.1), name
    assert found["kind"].bias > 0.1 > -0.1 > found["harsh"].bias
    assert found["careful"].agreement > 0.75 > 0.6 > found["coin"].agreement
    assert found["careful"].seconds_per_image == 2
    assert (found["careful"].hasty, found["coin"].hasty) == (0, 120)
    assert 0.1 < quality.alpha < 0.6
    assert (quality.labels, quality.shared, quality.people) == (1920, 1920, 4)
    assert wrong(project, truth) < before / 2


def test_nothing_new_is_not_measured_again(project, crowd):
    assert services.measure_project(project) is not None
    assert services.measure_project(project) is None


@pytest.mark.parametrize("people_came_first", [False, True])
def test_an_oracles_labels_are_looked_at_once(project, ready, ann, people_came_first):
    def judge(group):
        verdicts = [{"score": n / 4, "liked": n > 2, "reason": "-"} for n in range(4)]
        scoring.record_oracle_labels(group.pk, "demo", verdicts)

    def minutes_pass():
        Consensus.objects.update(labelled_at=F("labelled_at") - 2 * services.MEASURED_EVERY)
        LastLook.objects.update(looked_at=F("looked_at") - 2 * services.MEASURED_EVERY)

    first, second, third = ready(3)
    if people_came_first:
        acting.submit(ann, project, third, [1, 0, 0, 1])
        services.measure_project(project)
        minutes_pass()
    judge(first)
    assert services.due() == [project.pk]
    assert services.measure_project(project) is None  # people said nothing new
    assert services.due() == []
    minutes_pass()
    assert services.due() == []
    judge(second)
    assert services.due() == [project.pk]
    services.measure_project(project)
    acting.submit(ann, project, ready()[0], [0, 1, 0, 1])
    assert services.due() == []  # a moment ago
    LastLook.objects.update(looked_at=F("looked_at") - 2 * services.MEASURED_EVERY)
    assert services.due() == [project.pk]


def test_alpha_is_krippendorffs_textbook_value(project, ready, ann, person):
    """Two people, three images, one disagreement: 1 - observed/expected = 4/9 (the crowd-kit handbook's example)."""

    from webapp.quality.reliability import fit

    rows = [(1, 1, True), (1, 2, True), (2, 1, False), (2, 2, False), (3, 1, True), (3, 2, False)]
    assert fit(rows).alpha == pytest.approx(4 / 9)


def test_without_shared_images_there_is_no_alpha(project, ready, ann):
    (group,) = ready()
    acting.submit(ann, project, group, [1, 0, 0, 1])
    quality = services.measure_project(project)
    assert (quality.alpha, quality.shared) == (None, 0)
    assert PersonQuality.objects.get().like_accuracy is None
    assert Consensus.objects.get().rewards == [1, 0, 0, 1]
