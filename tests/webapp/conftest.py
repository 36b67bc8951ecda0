"""A project with people and ready groups, without any model."""

import io
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from django.urls import get_resolver, reverse
from django.utils import translation
from PIL import Image
from safetensors.numpy import save_file

from tests.webapp import acting
from webapp.accounts.models import User
from webapp.campaigns.models import InputImage, Membership, Role
from webapp.campaigns.services import create_project
from webapp.labelling import generation, leases
from webapp.labelling.models import Example, Group
from webapp.lib import logs, paths, storage
from webapp.rounds import comparisons, trials
from webapp.rounds.models import ModelVersion, Pair, TrainingRound, Trial

PROMPTS = [{"prompt": f"{n} stars", "split": split} for n in range(8) for split in ("train",)]


@pytest.fixture(autouse=True)
def english():
    """A request's language stays in its thread, which is that of the next test."""
    translation.deactivate()


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
    for group in generation.top_up(project.pk):
        claimed = generation.claim_group_for_generation(group.pk, "test")
        for i in range(group.size):
            data = io.BytesIO()
            Image.new("RGB", (pixels, pixels), (40 * i % 256, 200, 120)).save(data, "WEBP")
            storage.store().write(paths.image(project.pk, group.pk, i), data.getvalue())
        assert generation.complete_group(group.pk, claimed.token, [(pixels, pixels)] * group.size)
        group.refresh_from_db()
        groups.append(group)
    return groups


@pytest.fixture
def ready(project):
    """ready(n): n groups waiting for people."""
    return lambda count=1: make_ready(project, count)


@pytest.fixture
def post(client, ann):
    """post(path, body) as the annotator, in the project `stars`; `groups/<id>/…` of a group that was given to her."""
    client.force_login(ann)

    def send(path, body):
        if found := re.match(r"groups/(\d+)/", path):
            acting.give_once(ann, int(found[1]))
            path = path.replace(found[1], leases.task_name(ann.pk, int(found[1])), 1)
        return client.post(f"/p/stars/{path}", json.dumps(body), content_type="application/json")

    return send


def routes(patterns=None, names=""):
    """Every route as (its name with namespaces, its pattern)."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        if hasattr(pattern, "url_patterns"):
            inner = names + f"{pattern.namespace}:" if pattern.namespace else names
            yield from routes(pattern.url_patterns, inner)
        else:
            yield names + (pattern.name or ""), pattern


@pytest.fixture
def address(project, ready, ann):
    """address(name, slug): the route's address with numbers of what there is in the project `stars`."""
    (group,) = ready()
    training = TrainingRound.objects.create(
        project=project, number=1, base_version=project.active_version, idempotency_key="k", state="failed"
    )
    folder = paths.round_dir(training.pk) / "grid"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "before.webp").write_bytes(b"x")
    other = ModelVersion.objects.create(project=project, number=2, parent=project.active_version, path="x")
    tensors = {f"transformer.to_q.lora_{m}.weight": np.ones((1, 1), np.float32) for m in "AB"}
    save_file(tensors, Path(project.active_version.path) / "pytorch_lora_weights.safetensors")
    comparisons.start(project, [1, other.number], None)
    pair = Pair.objects.first()
    file = paths.data(paths.pair_image(project.pk, pair.pk, pair.sides[0]))
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    trial = trials.start(project, "a star", versions=[1], seeds=[1], by=None)
    file = paths.data(paths.trial_image(project.pk, trial.pk, 0, 0))
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    Trial.objects.filter(pk=trial.pk).update(made=1)
    digest = "0" * 64
    InputImage.objects.create(project=project, digest=digest, width=64, height=64)
    storage.store().write(paths.input_image(digest), b"x")
    Group.objects.filter(pk=group.pk).update(input_image=digest)
    values = {
        "digest": digest,
        "trial_id": trial.pk,
        "column": 0,
        "row": 0,
        "token": "unknown",
        "user_id": 1,
        "by_id": 1,
        "group_id": group.pk,
        "task": leases.give(ann, group.pk, lasts=True),
        "position": 0,
        "turn": 0,
        "example_id": Example.objects.create(generation=group.generations.first(), good=True).pk,
        "generation_id": group.generations.first().pk,
        "pair_id": pair.pk,
        "number": 1,
        "which": "before",
        "version_id": project.active_version_id,
    }
    patterns = dict(routes())

    def make(name, slug="stars"):
        names = patterns[name].pattern.converters
        return reverse(name, kwargs={k: slug if k == "slug" else values[k] for k in names})

    return make


@pytest.fixture
def lines():
    """lines(): what was logged so far, as LOG_FORMAT=json writes it."""
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(logs.json_formatter())
    handler.addFilter(logs.About())
    logging.getLogger().addHandler(handler)
    yield lambda: [json.loads(line) for line in handler.stream.getvalue().splitlines()]
    logging.getLogger().removeHandler(handler)
