"""Each task as a function, and the loop they make: generate, label, train, generate from the new version."""

import json

import pytest
from django.utils import timezone
from PIL import Image

from tests.webapp import acting
from trainer.sampler import load_trajectory
from trainer.surrogate_file import SURROGATE_NAME
from webapp.accounts.models import User
from webapp.campaigns.models import LabelSource
from webapp.campaigns.services import update_project
from webapp.labelling import generation, scoring
from webapp.labelling.models import Group, Label, LabelEvent, Scoring
from webapp.lib import options, paths
from webapp.rounds import services as rounds
from webapp.rounds.models import TrainingRound
from workers import tasks


def generate(project):
    groups = generation.top_up(project.pk)
    for group in groups:
        tasks.generate_group(group.pk)
    return Group.objects.filter(pk__in=[g.pk for g in groups])


def label(project, user, groups):
    for group in groups:
        answer = {0: True, 1: False, 2: group.pk % 2 == 0}
        acting.submit_group(user, project, group.pk, answer, seconds=1, idempotency_key=str(group.pk))


def test_a_generated_group_has_images_and_the_trajectory_that_made_them(project):
    for group in generate(project):
        assert group.state == "ready"
        stored = load_trajectory(paths.data(group.trajectory_file))
        assert stored.seeds == tuple(range(group.first_seed, group.first_seed + 3))
        assert stored.prompt == group.prompt.text
        for image in group.generations.all():
            assert Image.open(paths.data(image.image)).size == (128, 128)


def test_of_more_images_than_are_shown_those_that_are_chosen_are_kept(project):
    project.images_made = 6
    project.save()
    for group in generate(project):
        images = list(group.generations.all())
        stored = load_trajectory(paths.data(group.trajectory_file))
        assert stored.seeds == tuple(image.seed for image in images) and len(images) == 3
        assert set(stored.seeds) < set(group.seeds) and len(group.seeds) == 6
        assert all(0 < image.inclusion < 1 for image in images)


def test_a_second_delivery_changes_nothing(project):
    group = generate(project)[0]
    tasks.generate_group(group.pk)
    group.refresh_from_db()
    assert (group.attempt, group.generations.count()) == (1, 3)


def test_a_missing_model_is_reported_on_the_group(project):
    project.model_dir = "/nowhere"
    project.save()
    group = generate(project)[0]
    assert group.state == "queued"
    assert "model_index.json" in group.error


def test_an_oracle_labels_with_its_reason(project):
    project.label_source = LabelSource.ORACLE
    project.save()
    group = generate(project)[0]
    tasks.score_group(group.pk)
    group.refresh_from_db()
    assert group.state == "done"
    assert Label.objects.filter(oracle="scenes", generation__group=group).count() == 3
    assert "expected 1 star" in Label.objects.filter(generation__group=group).first().reason


@pytest.fixture
def unscored(project, monkeypatch):
    """A group with images, for an oracle that is out of order until it is mended by the function beside it."""
    project.label_source = LabelSource.ORACLE
    project.save()
    oracle, broken = tasks.get_oracle, [True]

    def get_oracle(spec):
        if broken:
            raise OSError("the oracle's server does not answer")
        return oracle(spec)

    monkeypatch.setattr(tasks, "get_oracle", get_oracle)
    return generate(project)[0], broken.clear


def test_an_oracle_that_fails_is_asked_again(unscored, monkeypatch):
    group, mend = unscored
    sent = []
    monkeypatch.setattr("webapp.lib.broker.send", lambda kind, row: sent.append((kind, row)))
    tasks.score_group(group.pk)
    assert "does not answer" in group.scoring.error
    tasks.housekeeping()
    assert ("score_group", group.pk) not in sent  # not at once
    mend()
    Scoring.objects.update(next_at=timezone.now())
    tasks.housekeeping()
    assert ("score_group", group.pk) in sent
    for _ in range(2):  # sent twice
        tasks.score_group(group.pk)
    group.refresh_from_db()
    assert (group.state, LabelEvent.objects.filter(generation__group=group).count()) == ("done", 3)
    assert not Scoring.objects.filter(group=group).exists()


def test_an_oracle_that_always_fails_is_named_and_can_be_asked_by_hand(unscored, project, client):
    group, mend = unscored
    for attempt in range(options.ORACLE_TRIES + 1):
        if attempt % 2:
            tasks.score_group(group.pk)
        else:
            scoring.claim_scoring(group.pk)  # by a worker that is lost
        Scoring.objects.filter(next_at__isnull=False).update(next_at=timezone.now())
    assert group.pk not in scoring.scorings_due()
    client.force_login(User.objects.create_superuser("boss"))
    said = f"The oracle gave group {group.pk} no labels: <bdi>OSError: the oracle&#x27;s server does not answer"
    assert said in client.get("/p/tiny/").content.decode()
    mend()
    client.post(f"/p/tiny/groups/{group.pk}/retry/")
    tasks.score_group(group.pk)
    group.refresh_from_db()
    assert group.state == "done"
    assert said not in client.get("/p/tiny/").content.decode()


def test_from_labels_to_images_of_the_new_version(project, ann, caplog):
    label(project, ann, generate(project))
    training = rounds.start_round(project, {}, idempotency_key="k")
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert training.error == ""
    assert training.state == "done"
    assert training.metrics.count() == 3
    assert training.kept_step == 3
    assert training.scores_before.keys() == training.scores_after.keys()
    for which in ("before", "after"):
        assert Image.open(paths.round_dir(training.pk) / "grid" / f"{which}.webp").height >= 128
    version = training.result_version
    card = json.loads((paths.model_version(version.path) / "version.json").read_text())
    assert card["sha256"] == version.sha256
    assert card["labels"]["people"] > 0
    assert list((paths.round_dir(training.pk) / "tensorboard").glob("events.*"))
    rounds.publish_version(project, version.pk)
    update_project(project, None, images_made=6)  # of which the surrogate's opinion chooses, too
    groups = generate(project)
    assert {g.version for g in groups} == {version}
    assert {g.state for g in groups} == {"ready"}
    assert {(g.made, g.generations.count()) for g in groups} == {(6, 3)}
    assert (paths.model_version(version.path) / SURROGATE_NAME).is_file() and "without it" not in caplog.text


def test_a_worker_that_was_replaced_while_it_stood_still_writes_nothing(project, ann, monkeypatch):
    label(project, ann, generate(project))
    training = rounds.start_round(project, {}, idempotency_key="k")
    folder, beat, seen = paths.round_dir(training.pk), rounds.heartbeat, {}

    def replaced(pk, token, progress=None):
        alive = beat(pk, token, progress)
        if alive and progress and progress["phase"] == "train" and not seen:
            TrainingRound.objects.update(heartbeat_at=timezone.now() - 2 * options.STALE)
            assert rounds.claim_round(pk, "another").token == token + 1
            seen.update({file: file.read_bytes() for file in (folder / "checkpoint").iterdir()})
        return alive  # it has not noticed yet

    monkeypatch.setattr(rounds, "heartbeat", replaced)
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert (training.state, training.owner, training.error) == ("running", "another", "")
    assert len(seen) == 2
    assert {file: file.read_bytes() for file in (folder / "checkpoint").iterdir()} == seen
    assert not paths.model_version(paths.version(f"round-{training.pk}")).exists()

    TrainingRound.objects.update(heartbeat_at=timezone.now() - 2 * options.STALE)  # that one was killed
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert (training.state, training.token) == ("done", 3)


def test_a_round_that_cannot_learn_says_why(project, ann):
    label(project, ann, generate(project))
    for file in paths.data(f"trajectories/{project.pk}").iterdir():
        file.write_bytes(b"broken")
    training = rounds.start_round(project, {}, idempotency_key="k")
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert training.state == "failed"
    assert "cannot be read" in training.error or "damaged" in training.error


def test_housekeeping_fills_the_queue_and_sends_each_group_once(
    project, monkeypatch, django_capture_on_commit_callbacks
):
    sent = []
    monkeypatch.setattr("webapp.lib.broker.send", lambda kind, row: sent.append((kind, row)))
    with django_capture_on_commit_callbacks(execute=True):
        tasks.housekeeping()
    queued = project.groups.filter(state="queued").values_list("pk", flat=True)
    assert len(queued) == project.ready_target
    assert sorted(row for kind, row in sent if kind == "generate_group") == sorted(queued)


@pytest.mark.django_db(transaction=True)
def test_an_unreachable_broker_loses_nothing(tiny, settings):
    from tests.workers.conftest import make_project
    from webapp.lib import broker

    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    broker.producer.cache_clear()
    try:
        groups = generation.top_up(make_project(tiny).pk)
    finally:
        broker.producer.cache_clear()
    assert len(groups) == 3
    assert Group.objects.filter(state="queued").count() == 3


def test_a_pair_is_one_noise_under_two_versions(project, ann, tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    from webapp.rounds import comparisons
    from webapp.rounds.models import ModelVersion

    first = project.active_version
    state = load_file(tiny[1] / "pytorch_lora_weights.safetensors")
    (tmp_path / "other").mkdir()
    other = {k: v.contiguous() + 0.3 if "lora_B" in k or ".up." in k else v.contiguous() for k, v in state.items()}
    save_file(other, tmp_path / "other" / "pytorch_lora_weights.safetensors")
    for number, path in ((2, first.path), (3, str(tmp_path / "other"))):
        ModelVersion.objects.create(project=project, number=number, parent=first, path=path)
    for number, same in ((2, True), (3, False)):
        comparison = comparisons.start(project, [1, number], None)
        tasks.generate_pairs(comparison.pk)
        pairs = list(comparison.pairs.all())
        assert {p.state for p in pairs} == {"ready"}, pairs[0].error
        a, b = (Image.open(paths.data(paths.pair_image(project.pk, pairs[0].pk, name))) for name in "ab")
        assert (a.tobytes() == b.tobytes()) == same


def test_housekeeping_finds_what_quality_webhooks_and_tests_wait_for(project, ann, monkeypatch):
    from webapp.api import services as api
    from webapp.quality.models import PersonQuality
    from webapp.rounds import comparisons
    from webapp.rounds.models import ModelVersion

    label(project, ann, generate(project))
    ModelVersion.objects.create(project=project, number=2, path="x")
    comparison = comparisons.start(project, [1, 2], None)
    api.create_webhook(project, "http://127.0.0.1/", ["version.published"], ann)
    rounds.publish_version(project, project.active_version_id)
    sent = []
    monkeypatch.setattr("webapp.lib.broker.send", lambda kind, row: sent.append((kind, row)))
    tasks.housekeeping()
    found = dict(sent)
    assert found["generate_pairs"] == comparison.pk
    assert found["measure_quality"] == project.pk
    tasks.measure_quality(found["measure_quality"])
    assert PersonQuality.objects.get().groups == 3
    tasks.deliver_webhook(found["deliver_webhook"])
    assert "not at a public address" in project.webhooks.get().deliveries.get().error
    sent.clear()
    tasks.housekeeping()
    assert {"measure_quality", "deliver_webhook"} & set(dict(sent)) == set()


def test_a_group_has_the_size_that_it_was_given(project):
    project.sizes = "128x64"
    project.save()
    group = generate(project)[0]
    assert (group.state, group.image_size) == ("ready", "128x64")
    assert load_trajectory(paths.data(group.trajectory_file)).trajectory.shape[-2:] == (8, 16)
    for image in group.generations.all():
        assert Image.open(paths.data(image.image)).size == (128, 64) == (image.width, image.height)
