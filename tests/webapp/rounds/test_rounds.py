"""Rounds as rows: started once, owned by one worker, ended in one version."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from django.utils.html import escape

from tests.webapp import acting
from webapp.labelling import generation
from webapp.labelling.models import Group
from webapp.lib import options, paths, storage
from webapp.rounds import services
from webapp.rounds.models import ModelVersion, TrainingRound

RESULT = {"sha256": "ab", "scores_before": {"reward": 0.2}, "scores_after": {"reward": 0.4}}


@pytest.fixture
def labelled(ready, ann, project):
    groups = ready(3)
    for group, likes in zip(groups, ([1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 1, 0]), strict=True):
        answer = {i: bool(v) for i, v in enumerate(likes)}
        acting.submit_group(ann, project, group.pk, answer, seconds=1, idempotency_key=f"k{group.pk}")
    project.refresh_from_db()
    return groups


def start(project, key="k", **values):
    return services.start_round(project, values, idempotency_key=key)


def test_it_works(project, labelled):
    training = start(project, updates=7)
    claimed = services.claim_round(training.pk, "worker")
    progress = {"phase": "train", "step": 3, "total": 7, "seconds_left": 4.0, "metrics": {"reward": 0.5}}
    assert services.heartbeat(training.pk, claimed.token, progress)
    version = services.finish_round(training.pk, claimed.token, RESULT)
    training.refresh_from_db()
    assert training.state == "done"
    assert (version.number, version.parent, version.status) == (2, project.active_version, "draft")
    assert training.metrics.get().values == {"reward": 0.5}


def test_the_manifest_holds_every_label(project, labelled):
    training = services.claim_round(start(project).pk, "worker")
    spec = json.loads(services.write_spec(training).read_text())
    lines = [json.loads(line) for line in Path(spec["groups_file"]).read_text().splitlines()]
    assert [line["rewards"] for line in lines] == [[1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 1, 0]]
    assert len(spec["train_prompts"]) == 8
    again = services.write_spec(training).read_text()
    assert json.loads(again) == spec


def test_a_double_click_starts_one_round(project, labelled):
    assert start(project) == start(project)
    with pytest.raises(services.RoundError, match="already queued or running"):
        start(project, key="another")
    assert TrainingRound.objects.count() == 1


def test_without_signal_it_is_refused(project, ready):
    with pytest.raises(services.RoundError, match="rate some groups first"):
        start(project)


def test_a_wrong_setting_is_named(project, labelled):
    with pytest.raises(services.RoundError, match="updates: 0 is out of range"):
        start(project, updates=0)


def test_a_second_delivery_does_not_run_it_twice(project, labelled):
    training = start(project)
    assert services.claim_round(training.pk, "one") is not None
    assert services.claim_round(training.pk, "two") is None


def test_a_lost_worker_is_replaced_and_then_refused(project, labelled):
    training = start(project)
    old = services.claim_round(training.pk, "one")
    TrainingRound.objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
    new = services.claim_round(training.pk, "two")
    assert not services.heartbeat(training.pk, old.token)
    assert services.finish_round(training.pk, old.token, RESULT) is None
    assert services.finish_round(training.pk, new.token, RESULT) is not None
    assert ModelVersion.objects.count() == 2


def test_a_round_that_kills_its_workers_fails(project, labelled):
    training = start(project)
    for i in range(options.ROUND_LOST_WORKERS):
        assert services.claim_round(training.pk, f"w{i}") is not None
        TrainingRound.objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
    assert services.claim_round(training.pk, "last") is None
    training.refresh_from_db()
    assert training.state == "failed"
    assert "lost 10 times after step 0" in training.error


def test_restarts_while_it_gets_further_fail_nothing(project, labelled):
    training = start(project)

    def lost_after(step):
        claimed = services.claim_round(training.pk, "w")
        if claimed is not None:
            assert services.keep_checkpoint(training.pk, claimed.token, step)
            TrainingRound.objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
        return claimed

    last = 3 * options.ROUND_LOST_WORKERS
    assert all(lost_after(step) for step in range(1, last + 1))
    for _ in range(options.ROUND_LOST_WORKERS - 1):  # now it is always the same step that kills
        assert lost_after(last)
    assert lost_after(last) is None
    training.refresh_from_db()
    assert (training.state, training.error) == (
        "failed",
        f"the worker was lost 10 times after step {last}; see its log",
    )


def test_a_cancelled_round_stops_at_its_next_heartbeat(project, labelled):
    training = start(project)
    claimed = services.claim_round(training.pk, "worker")
    services.cancel_round(training.pk)
    assert not services.heartbeat(training.pk, claimed.token)
    services.confirm_cancel(training.pk, claimed.token)
    training.refresh_from_db()
    assert training.state == "cancelled"


def test_a_queued_round_is_cancelled_at_once(project, labelled):
    assert services.cancel_round(start(project).pk).state == "cancelled"
    assert start(project, key="next").number == 2


def test_publishing_drops_the_old_versions_unrated_groups(project, labelled, ready):
    ready(2)
    training = start(project)
    version = services.finish_round(training.pk, services.claim_round(training.pk, "w").token, RESULT)
    services.publish_version(project, version.pk)
    assert Group.objects.filter(state="superseded").count() == 2
    project.refresh_from_db()
    assert {g.version for g in generation.top_up(project.pk)} == {version}


def test_rounds_start_by_themselves_at_the_threshold(project, labelled):
    project.auto_start_after = 3
    project.save()
    assert services.start_due_rounds() == []
    project.auto_start_after = 2
    project.save()
    assert len(services.start_due_rounds()) == 1
    assert services.start_due_rounds() == []


ALARM = (
    "Stopped at update 4 of 7: the surrogate likes the new images better than the parent's, but contrast fell by 60%."
)


def test_why_the_alarm_ended_a_round_is_shown_at_once_and_kept(client, project, labelled, boss):
    training = start(project, updates=7)
    token = services.claim_round(training.pk, "worker").token
    progress = {"phase": "train", "step": 4, "total": 7, "seconds_left": 0.0, "metrics": {"second_contrast": 0.4}}
    services.heartbeat(training.pk, token, {**progress, "alarm": ALARM})
    client.force_login(boss)
    page = f"/p/{project.slug}/rounds/1/"
    assert escape(ALARM) in client.get(page).content.decode()
    services.heartbeat(training.pk, token)  # alive, nothing new
    services.finish_round(training.pk, token, RESULT | {"alarm": ALARM, "steps": 4})
    training.refresh_from_db()
    assert (training.state, training.step, training.alarm) == ("done", 4, ALARM)
    for shown in (page, f"/p/{project.slug}/"):
        assert escape(ALARM) in client.get(shown).content.decode()
    german = client.get(page, headers={"accept-language": "de"}).content.decode()
    assert "Die Warnung hat diese Runde beendet." in german


def test_a_round_without_alarm_shows_none(client, project, labelled, boss):
    training = start(project, updates=7)
    services.finish_round(training.pk, services.claim_round(training.pk, "w").token, RESULT | {"alarm": "", "steps": 7})
    client.force_login(boss)
    for shown in (f"/p/{project.slug}/rounds/1/", f"/p/{project.slug}/"):
        assert "alarm" not in client.get(shown).content.decode().lower()


@pytest.mark.parametrize(
    ("share", "percent", "sharpens"), [(0.76, "76%", True), (0.55, "55%", False), (None, None, False)]
)
def test_the_page_says_what_the_base_knows_of_the_labels(project, labelled, client, boss, share, percent, sharpens):
    training = start(project, updates=7)
    claimed = services.claim_round(training.pk, "worker")
    metrics = {"reward": 0.5} if share is None else {"reward": 0.5, "base_ranks": share}
    for step, values in ((1, metrics), (2, {"reward": 0.6})):
        progress = {"phase": "train", "step": step, "total": 7, "seconds_left": 4.0, "metrics": values}
        assert services.heartbeat(training.pk, claimed.token, progress)
    client.force_login(boss)
    page = client.get(f"/p/{project.slug}/rounds/{training.number}/").content.decode()
    assert (percent is not None and f"ranks {percent} as the labels do" in page) == (share is not None)
    assert ("sharpen the model more than teach it" in page) == sharpens


def test_the_page_shows_what_the_surrogate_learned(project, labelled, client, boss):
    training = start(project, updates=7)
    services.finish_round(training.pk, services.claim_round(training.pk, "w").token, RESULT | {"alarm": "", "steps": 7})
    client.force_login(boss)
    page = f"/p/{project.slug}/rounds/{training.number}/"
    assert "What the surrogate learned" not in client.get(page).content.decode()
    assert client.get(f"{page}surrogate.webp").status_code == 404
    storage.store().write(paths.grid(training.pk, "surrogate"), b"RIFF picture")
    assert f'src="{page}surrogate.webp"' in client.get(page).content.decode()
    assert client.get(f"{page}surrogate.webp").status_code == 200


def test_the_page_says_which_groups_were_left_out(project, labelled, client, boss):
    training = start(project, updates=7)
    claimed = services.claim_round(training.pk, "worker")
    metrics = {"groups_taught": 9, "groups_silent": 1, "groups_damaged": 2}
    progress = {"phase": "train", "step": 1, "total": 7, "seconds_left": 4.0, "metrics": metrics}
    assert services.heartbeat(training.pk, claimed.token, progress)
    client.force_login(boss)
    page = client.get(f"/p/{project.slug}/rounds/{training.number}/").content.decode()
    assert "1 of them has no signal and was left out." in page
    assert "files of 2 groups cannot be read, so they were left out" in page
