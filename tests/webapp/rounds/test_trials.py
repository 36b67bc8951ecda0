"""Trials: who may have how many, what a worker does with one, how it ends and when it goes."""

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from webapp.api.services import create_token
from webapp.lib import options, paths, storage
from webapp.rounds import trials
from webapp.rounds.models import ModelVersion, Trial

FORM = {"prompt": "a red star", "versions": ["1"], "steps": "40", "guidance": "4", "seeds": "7, 9"}


def start(project, by=None, **values):
    return trials.start(project, "a star", **{"versions": [1], "seeds": [1, 2], "by": by, **values})


def made(trial, column=0):
    """What a worker does, without a model."""
    claimed = trials.claim(trial.pk)
    for row in range(len(trial.seeds)):
        storage.store().write(paths.trial_image(trial.project_id, trial.pk, column, row), b"RIFF")
    return trials.side_made(trial.pk, claimed.token, column + 1)


def test_an_admin_tries_a_prompt_and_others_with_the_link_look(client, project, boss, person, ann):
    ModelVersion.objects.create(project=project, number=2, path="x", parent=project.active_version)
    client.force_login(boss)
    page = client.get("/p/stars/try/", {"prompt": "a moon", "versions": ["2"], "base": "on"}).content.decode()
    assert 'value="a moon"' in page and '<option value="3 stars">' in page
    answer = client.post("/p/stars/try/start/", {**FORM, "versions": ["1", "2"], "base": "on"})
    trial = Trial.objects.get()
    assert answer.url == f"/p/stars/try/{trial.pk}/"
    assert [side.name for side in trials.sides(trial)] == ["version 1", "version 2", "base, 40 steps, guidance 4"]
    assert trial.seeds == [7, 9] and trial.made_by == boss
    assert made(trial)
    client.force_login(person("rea", "reviewer"))
    page = client.get(f"/p/stars/try/{trial.pk}/").content.decode()
    assert page.count("<img") == 2 and "1 of 3 columns" in page and "cancel/" not in page
    assert client.get(f"/p/stars/try/{trial.pk}/0-1.webp").content == b"RIFF"
    assert client.get(f"/p/stars/try/{trial.pk}/1-0.webp").status_code == 404
    client.force_login(ann)
    assert client.get(f"/p/stars/try/{trial.pk}/").status_code == 404


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"versions": [], "seeds": "1"}, "versions: choose 1 to 4"),
        ({"versions": ["1"], "seeds": "1 2 3 4 5 6 7 8 9"}, "seeds: give 1 to 8"),
        ({"seeds": "one"}, "seeds: send a whole number"),
        ({"seeds": "-1"}, "seeds: send a whole number"),
        ({"versions": ["5"]}, "Select a valid choice"),
        ({"base": "on", "steps": "51"}, "less than or equal to 50"),
        ({"prompt": " "}, "This field is required"),
    ],
)
def test_what_cannot_be_tried_is_said(client, project, boss, values, said):
    client.force_login(boss)
    answer = client.post("/p/stars/try/start/", {**FORM, **values})
    assert answer.status_code == 400 and said in answer.content.decode()
    assert not Trial.objects.exists()


def test_a_person_and_a_project_have_only_so_many_waiting(project, boss, person):
    for _ in range(options.TRIALS_OF_A_PERSON):
        start(project, boss)
    with pytest.raises(trials.TrialError, match="3 of yours wait"):
        start(project, boss)
    for n in range(options.TRIALS_OF_A_PROJECT - options.TRIALS_OF_A_PERSON):
        start(project, person(f"other{n}", "admin"))
    with pytest.raises(trials.TrialError, match="10 of this project wait"):
        start(project, person("last", "admin"))
    trials.cancel(project, Trial.objects.first().pk)
    assert start(project, person("later", "admin"))


def test_the_place_in_the_queue_and_a_cancelled_one_is_not_made(client, project, boss):
    first, second = start(project), start(project, boss)
    assert (trials.ahead(first), trials.ahead(second)) == (0, 1)
    assert trials.waiting() == [first.pk, second.pk]
    client.force_login(boss)
    assert "1 trial is made before this one" in client.get(f"/p/stars/try/{second.pk}/").content.decode()
    claimed = trials.claim(first.pk)
    assert trials.claim(first.pk) is None
    client.post(f"/p/stars/try/{first.pk}/cancel/")
    assert not trials.side_made(first.pk, claimed.token, 1)
    first.refresh_from_db()
    assert (first.state, first.made) == ("cancelled", 0)
    Trial.objects.filter(pk=second.pk).update(created_at=timezone.now() - timedelta(minutes=5))
    assert "is a generate worker running?" in client.get(f"/p/stars/try/{second.pk}/").content.decode()


def test_a_lost_worker_and_an_error(project):
    trial = start(project)
    lost = trials.claim(trial.pk)
    Trial.objects.update(heartbeat_at=timezone.now() - options.SILENT_STALE - timedelta(seconds=1))
    assert trials.waiting() == [trial.pk]
    claimed = trials.claim(trial.pk)
    assert not trials.side_made(trial.pk, lost.token, 1)
    for _ in range(options.TRIES - 1):
        trials.fail(trial.pk, claimed.token, "no memory")
        claimed = trials.claim(trial.pk) or claimed
    trial.refresh_from_db()
    assert (trial.state, trial.error) == ("failed", "no memory")


def test_a_trials_prompt_becomes_the_projects(client, project, boss):
    client.force_login(boss)
    trial = start(project)
    client.post(f"/p/stars/try/{trial.pk}/prompt/", {"split": "validation"})
    assert project.prompts.get(text="a star").split == "validation"
    assert "It is one of the project" in client.get(f"/p/stars/try/{trial.pk}/").content.decode()


def test_old_ones_go_with_their_images_and_their_address_is_never_anothers(project):
    trial = start(project)
    made(trial)
    file = paths.data(paths.trial_image(project.pk, trial.pk, 0, 0))
    assert file.exists() and trials.expire() == 0
    Trial.objects.update(created_at=timezone.now() - options.TRIAL_KEPT - timedelta(minutes=1))
    assert trials.expire() == 1
    assert not file.exists()
    assert start(project).pk > trial.pk


def test_by_api(client, project, boss):
    text = create_token(project, boss, "trials", ["admin"])[1]
    headers = {"Authorization": f"Bearer {text}"}
    body = {"prompt": "a star", "versions": [1], "base": {"steps": 8}, "seeds": [3]}
    path = "/api/v1/projects/stars/trials"
    answer = client.post(path, json.dumps(body), content_type="application/json", headers=headers)
    assert answer.status_code == 200, answer.content
    trial = Trial.objects.get()
    made(trial)
    told = client.get(f"{path}/{trial.pk}", headers=headers).json()
    assert [(side["version"], side["steps"], side["guidance"]) for side in told["sides"]] == [
        (1, 4, 1.0),
        (None, 8, 4.0),
    ]
    assert [len(side["images"]) for side in told["sides"]] == [1, 0]
    assert client.get(told["sides"][0]["images"][0], headers=headers).content == b"RIFF"
    assert client.post(f"{path}/{trial.pk}/cancel", headers=headers).json()["state"] == "cancelled"
    refused = client.post(path, json.dumps({**body, "versions": [9]}), content_type="application/json", headers=headers)
    assert (refused.status_code, refused.json()["detail"]) == (400, "versions: there is no version 9")
