"""A round trained elsewhere, entered as the project's own."""

import json

import pytest
from django.urls import reverse
from PIL import Image

from common.files import image_bytes, sha256_of
from webapp.campaigns.models import Project
from webapp.lib import paths, storage
from webapp.rounds.adoption import adopt_round
from webapp.rounds.models import RoundState, VersionStatus
from webapp.rounds.services import RoundError

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"weights")
    for which in ("before", "after"):
        (tmp_path / f"{which}.webp").write_bytes(image_bytes(Image.new("RGB", (16, 16), "red"), "WEBP"))
    card = {
        "sha256": sha256_of(tmp_path / "pytorch_lora_weights.safetensors"),
        "steps": 20,
        "settings": {"updates": 20, "group_size": 8},
        "labels": {"scenes": 320},
        "scores_before": {"strict": 0.5},
        "scores_after": {"strict": 0.75},
        "metrics": [{"step": 10, "reward": 0.6}, {"step": 20, "reward": 0.7}],
    }
    (tmp_path / "round.json").write_text(json.dumps(card))
    return tmp_path


def test_it_is_done_and_its_version_waits_for_a_decision(project, folder):
    training = adopt_round(project, folder)
    assert (training.number, training.state, training.step) == (1, RoundState.DONE, 20)
    assert training.groups_used == 40
    version = training.result_version
    assert (version.number, version.status, version.parent) == (2, VersionStatus.DRAFT, project.active_version)
    assert version.scores == {"strict": 0.75}
    assert [(m.step, m.values) for m in training.metrics.all()] == [(10, {"reward": 0.6}), (20, {"reward": 0.7})]
    assert storage.store().read(paths.grid(training.pk, "after")) == (folder / "after.webp").read_bytes()
    assert adopt_round(project, folder) == training  # the demo may be seeded again
    assert project.versions.count() == 2


def test_its_page_shows_both_pictures(client, boss, project, folder):
    adopt_round(project, folder)
    client.force_login(boss)
    page = client.get(reverse("round", args=[project.slug, 1])).content.decode()
    for which in ("before", "after"):
        address = reverse("round-grid", args=[project.slug, 1, which])
        assert address in page
        assert client.get(address).status_code == 200


@pytest.mark.parametrize("damage", ["weights", "card", "picture"])
def test_a_folder_that_is_not_whole_changes_nothing(project, folder, damage):
    if damage == "weights":
        (folder / "pytorch_lora_weights.safetensors").write_bytes(b"others")
    elif damage == "card":
        (folder / "round.json").write_text('{"steps": 20}')
    else:
        (folder / "after.webp").unlink()
    with pytest.raises(RoundError, match=r"^round: "):
        adopt_round(project, folder)
    assert Project.objects.get(pk=project.pk).versions.count() == 1
    assert project.rounds.count() == 0
