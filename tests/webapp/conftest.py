"""A project with people and ready groups, without any model."""

import io
import json

import pytest
from PIL import Image

from webapp import paths, storage
from webapp.accounts.models import User
from webapp.campaigns.models import Membership, Role
from webapp.campaigns.services import create_project
from webapp.labelling import services

PROMPTS = [{"prompt": f"{n} stars", "split": split} for n in range(8) for split in ("train",)]


@pytest.fixture(autouse=True)
def quick_passwords(settings):
    """Hashing as slowly as in production would take most of these tests' time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def project(db, tmp_path):
    return create_project(
        "stars", "Stars", model_dir=str(tmp_path), student_dir=str(tmp_path), prompts=PROMPTS, group_size=4
    )


@pytest.fixture
def person(project):
    """person("ann", "annotator"): a member of the project, logged out."""

    def make(name, role=Role.ANNOTATOR):
        user = User.objects.create_user(name, password="correct horse")
        if role:
            Membership.objects.create(user=user, project=project, role=role)
        return user

    return make


@pytest.fixture
def ann(person):
    return person("ann")


@pytest.fixture
def boss(person):
    return person("boss", Role.ADMIN)


def make_ready(project, count=1, pixels=128):
    """Groups as a worker leaves them, images and all."""
    groups = []
    project.ready_target = project.groups.filter(state="ready").count() + count
    project.save()
    for group in services.top_up(project.pk):
        claimed = services.claim_group_for_generation(group.pk, "test")
        for i in range(group.size):
            data = io.BytesIO()
            Image.new("RGB", (pixels, pixels), (40 * i % 256, 200, 120)).save(data, "WEBP")
            storage.store().write(paths.image(project.pk, group.pk, i), data.getvalue())
        assert services.complete_group(group.pk, claimed.token, [(pixels, pixels)] * group.size)
        group.refresh_from_db()
        groups.append(group)
    return groups


@pytest.fixture
def ready(project):
    """ready(n): n groups waiting for people."""
    return lambda count=1: make_ready(project, count)


@pytest.fixture
def post(client, ann):
    """post(path, body) as the annotator, in the project `stars`."""
    client.force_login(ann)

    def send(path, body):
        return client.post(f"/p/stars/{path}", json.dumps(body), content_type="application/json")

    return send
