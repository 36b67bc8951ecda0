"""A project whose model is tiny but real."""

import pytest
import torch

from tests.trainer.conftest import build_tiny_model
from trainer.backends import load_backend
from trainer.roles import STUDENT, Roles
from webapp.accounts.models import User
from webapp.campaigns.models import Membership
from webapp.campaigns.services import create_project

SETTINGS = {
    "updates": 3,
    "prompts_per_update": 2,
    "student_batch": 4,
    "rank": 4,
    "alpha": 8,
    "validation_images": 4,
    "validate_every": 3,
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """(model folder, student folder)."""
    folder = tmp_path_factory.mktemp("tiny")
    model = build_tiny_model(folder / "model")
    torch.manual_seed(1)
    backend = load_backend(model)
    state = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8).state_dict(STUDENT)
    backend.save_lora(folder / "student", state, rank=4, alpha=8)
    return model, folder / "student"


def make_project(tiny, slug="tiny"):
    """Four training prompts, one to validate on, groups of three."""
    prompts = [
        {"prompt": f"a {c} star", "metadata": {"tag": "colors", "include": [{"class": "star", "count": 1, "color": c}]}}
        for c in ("red", "blue", "green", "pink", "black")
    ]
    prompts[-1]["split"] = "validation"
    return create_project(
        slug,
        slug.title(),
        model_dir=str(tiny[0]),
        student_dir=str(tiny[1]),
        prompts=prompts,
        group_size=3,
        ready_target=3,
        oracle="scenes",
        round_settings=SETTINGS,
    )


@pytest.fixture
def project(db, tiny):
    return make_project(tiny)


@pytest.fixture
def ann(project):
    user = User.objects.create_user("ann")
    Membership.objects.create(user=user, project=project, role="annotator")
    return user
