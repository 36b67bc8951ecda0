"""Versions go to the hub in a thread of the worker's, and an oracle's labels follow its threshold in a task."""

import threading

from tests.webapp import acting
from webapp.labelling import following, generation, scoring
from webapp.labelling.models import Label
from webapp.quality import services as quality
from webapp.quality.models import OracleQuality
from webapp.rounds import sharing
from workers import hub, tasks


def test_housekeeping_finds_what_is_to_be_sent_and_the_task_begins_a_thread(project, ann, fake_hub, monkeypatch):
    asked = sharing.ask(project.active_version, "team/stars", private=True, by=ann)
    sent, begun, done = [], [], threading.Event()
    monkeypatch.setattr(tasks.broker, "send", lambda kind, row: sent.append((kind, row)))
    tasks.housekeeping()
    assert ("share_version", asked.pk) in sent

    def send(sharing_id):
        begun.append((sharing_id, threading.current_thread()))
        done.set()

    monkeypatch.setattr(hub, "send", send)
    tasks.share_version(asked.pk)
    assert done.wait(30)
    ((number, thread),) = begun
    assert number == asked.pk and thread is not threading.current_thread()


def test_an_oracles_labels_follow_its_threshold_and_are_measured_again(project, ann):
    (group, *_) = generation.top_up(project.pk)
    tasks.generate_group(group.pk)
    verdicts = [{"score": score, "liked": score > 0.5, "reason": "-"} for score in (0.9, 0.6, 0.1)]
    scoring.record_oracle_labels(group.pk, project.oracle, verdicts)
    acting.submit_group(ann, project, group.pk, {0: True, 1: False, 2: False}, seconds=1, idempotency_key="k")
    quality.measure_project(project)
    assert OracleQuality.objects.get(tag="").agreement < 1
    project.oracle_thresholds = {project.oracle: 0.7}
    project.save()
    tasks.measure_quality(project.pk)
    rows = Label.objects.filter(annotator=None).order_by("generation__position")
    assert list(rows.values_list("liked", flat=True)) == [True, False, False]
    assert OracleQuality.objects.get(tag="").agreement == 1 and following.follow_threshold(project) == 0
