"""A trial is made from the same noise by every side, before the groups that wait."""

import numpy as np
from PIL import Image

from webapp.campaigns.services import update_project
from webapp.labelling import generation
from webapp.lib import paths
from webapp.rounds import plans, services, trials
from webapp.rounds.models import ModelVersion, Trial
from workers import tasks

ROUNDING = 1  # of 255, the mean over an image's pixels


def pixels(project, trial, column, row):
    image = Image.open(paths.data(paths.trial_image(project.pk, trial.pk, column, row))).convert("RGB")
    return np.asarray(image, dtype=int)


def same(one, other):
    """Up to rounding: a batch of another size adds its products in another order, which shows where passes are in fp32."""
    return np.abs(one - other).mean() < ROUNDING


def test_sides_by_version_and_base_before_the_groups_that_wait(project, tiny):
    ModelVersion.objects.create(project=project, number=2, path=str(tiny[1]), parent=project.active_version)
    group, *_ = generation.top_up(project.pk)
    trial = trials.start(project, "a moon", versions=[1, 2], base=(4, 3.0), seeds=[5, 6], by=None)
    again = trials.start(project, "a moon", versions=[2], seeds=[6], by=None)
    tasks.generate_group(group.pk)
    assert set(Trial.objects.values_list("state", flat=True)) == {"ready"}
    assert same(pixels(project, trial, 0, 0), pixels(project, trial, 1, 0))  # the same weights from the same noise
    assert not same(pixels(project, trial, 0, 0), pixels(project, trial, 0, 1))
    assert not same(pixels(project, trial, 0, 0), pixels(project, trial, 2, 0))
    assert same(pixels(project, again, 0, 0), pixels(project, trial, 1, 1))  # after the base, too
    group.refresh_from_db()
    assert group.state == "ready"


def test_an_error_is_told_and_tried_again_by_housekeeping(project, monkeypatch):
    trial = trials.start(project, "a moon", versions=[1], seeds=[5], by=None)
    project.model_dir = "/nowhere"
    project.save()
    tasks.generate_trial(trial.pk)
    trial.refresh_from_db()
    assert trial.state == "queued" and "model_index.json" in trial.error
    sent = []
    monkeypatch.setattr(tasks.broker, "send", lambda kind, row: sent.append((kind, row)))
    tasks.housekeeping()
    assert ("generate_trial", trial.pk) in sent


def test_a_round_is_planned_on_the_machine_that_trains(project):
    asked = plans.ask(project, services.check_settings(project.round_settings))
    tasks.plan_round(asked.pk)
    asked.refresh_from_db()
    assert asked.error == ""
    assert 0 < asked.values["bytes"] < asked.values["has"] and asked.values["flops"] > 0 and asked.values["seconds"] > 0
    assert plans.estimate(asked).fits


def test_what_fits_onto_a_card_is_found_on_the_machine_that_trains(project):
    known = services.check_settings(project.round_settings)
    for card, has in (("12GB", 12e9), (plans.WORKER, None)):
        asked = plans.ask(project, known, card)
        tasks.plan_round(asked.pk)
        asked.refresh_from_db()
        assert (
            asked.error == "" and asked.values["options"] == {} and asked.values["has"] == (has or asked.values["has"])
        )
    chosen = {"half": True, "checkpointing": True, "micro_batch": 1}
    update_project(project, None, round_memory=chosen)
    thrifty = plans.ask(project, known)
    project.refresh_from_db()
    tasks.plan_round(thrifty.pk)
    thrifty.refresh_from_db()
    assert thrifty.values["bytes"] < asked.values["bytes"]
