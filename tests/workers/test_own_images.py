"""Own images from the archive to a surrogate that has learned from their labels."""

import io
import json

import pytest
import torch
from django.core.files.uploadedfile import SimpleUploadedFile

from tests.own_images import archive, picture
from tests.webapp import acting
from trainer.rounds import sources
from trainer.sampler import load_trajectory
from webapp.imports import files, services
from webapp.labelling.models import Group
from webapp.lib import paths
from webapp.rounds import services as rounds
from webapp.rounds.models import TrainingRound
from workers import tasks


@pytest.fixture
def own(project, ann):
    """Two groups of own images of three each, encoded."""
    rows = [{"file_name": f"{n}.png", "prompt": "a grey cube"} for n in range(6)]
    data = archive(
        {f"{n}.png": picture(n) for n in range(6)} | {"metadata.jsonl": "\n".join(json.dumps(row) for row in rows)}
    )
    uploaded = [SimpleUploadedFile("own.zip", data)]
    services.bring_in(project, "own.zip", lambda reader: files.read(reader, uploaded))
    groups = list(Group.objects.filter(project=project))
    for group in groups:
        tasks.generate_group(group.pk)
    return list(Group.objects.filter(pk__in=[g.pk for g in groups]))


def label(project, user, groups):
    for group in groups:
        answer = {0: True, 1: False, 2: True}
        acting.submit_group(user, project, group.pk, answer, seconds=1, idempotency_key=str(group.pk))


def test_a_worker_encodes_them(own, project):
    for group in own:
        assert (group.state, group.error, group.generations.count()) == ("ready", "", 3)
        stored = load_trajectory(paths.data(group.trajectory_file))
        model = tasks.sampler(project)
        assert stored.trajectory.shape == (3, 1, *model.backend.latent_shape)
        assert (stored.seeds, stored.version, stored.sigmas.tolist()) == ((), "", [0.0])
        shown = model.backend.decode(stored.trajectory[:, 0])
        assert shown[0].size == (128, 128)


def run(project, monkeypatch, **settings):
    """What a round's updates learned from, and the round."""
    seen, batches = [], sources.LabelSource.batches

    def noted(self, generator):
        for groups in batches(self, generator):
            seen.append(groups)
            yield groups

    monkeypatch.setattr(sources.LabelSource, "batches", noted)
    rounds.start_round(project, {"validation_images": 0, **settings}, idempotency_key="k")
    training = TrainingRound.objects.get()
    tasks.run_round(training.pk)
    training.refresh_from_db()
    return seen, training


@pytest.mark.parametrize("chosen", [{"surrogate_first": 0.4}, {"surrogate": "head", "head_passes": 1}])
def test_a_surrogate_is_warmed_up_on_them_alone(own, project, ann, monkeypatch, chosen):
    label(project, ann, own)
    seen, training = run(project, monkeypatch, **chosen)
    assert (training.state, training.error) == ("done", "")
    assert training.made_from["own"] == 2
    assert all(groups.imported.all() and groups.trajectory.shape[2] == 1 for groups in seen)
    metrics = {k for row in training.metrics.all() for k in row.values}
    assert "surrogate" in metrics and "groups_imported" in metrics


def test_they_teach_beside_generated_groups(own, project, ann, monkeypatch):
    from webapp.labelling import generation

    label(project, ann, own)
    made = generation.top_up(project.pk)
    for group in made:
        tasks.generate_group(group.pk)
    label(project, ann, made)
    seen, training = run(project, monkeypatch)
    assert (training.state, training.error) == ("done", "")
    groups = torch.cat([batch.imported for batch in seen])
    points = {batch.trajectory.shape[2] for batch in seen}
    assert points == {5} and groups.any() and not groups.all()
    for batch in seen:
        for own_images, trajectory in zip(batch.imported, batch.trajectory, strict=True):
            assert own_images == torch.equal(trajectory[:, 0], trajectory[:, -1])


def test_a_method_that_trains_the_student_leaves_them_out(own, project, ann, monkeypatch):
    label(project, ann, own)
    with pytest.raises(rounds.RoundError, match="never teach the student itself"):
        rounds.start_round(project, {"method": "best_of_group"}, idempotency_key="k")
    training = rounds.start_round(project, {"method": "task_vector"}, idempotency_key="k")  # learns by a surrogate
    assert training.settings["method"] == "task_vector"


def test_a_damaged_one_is_not_made_again(own, project):
    from webapp.labelling import generation
    from webapp.labelling.errors import LabellingError
    from webapp.labelling.models import Generation

    image = own[0].generations.first()
    kept = paths.data(image.image).read_bytes()
    paths.data(image.image).write_bytes(b"x")
    generation.report_damaged(image, "it is damaged")
    with pytest.raises(LabellingError, match="still damaged"):
        generation.retry_group(project, own[0].pk)
    paths.data(image.image).write_bytes(kept)
    generation.retry_group(project, own[0].pk)
    tasks.generate_group(own[0].pk)
    own[0].refresh_from_db()
    assert own[0].state == "ready" and Generation.objects.filter(group=own[0]).count() == 3
    assert io.BytesIO(paths.data(image.image).read_bytes()).getvalue() == kept
