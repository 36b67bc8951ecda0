"""Every address against everybody: outsiders learn nothing, not even that a project exists."""

from pathlib import Path

import pytest
from django.urls import get_resolver, reverse

from webapp import paths
from webapp.campaigns.models import Role
from webapp.campaigns.services import accept_invitation, create_project, invite
from webapp.rounds import comparisons
from webapp.rounds.models import ModelVersion, Pair, TrainingRound

EVERYBODY, MEMBERS, REVIEWERS, ADMINS = range(4)
# address → (method, who may)
TABLE = {
    "home": ("get", None),
    "login": ("get", EVERYBODY),
    "logout": ("post", None),
    "join": ("get", EVERYBODY),
    "health": ("get", EVERYBODY),
    "new-project": ("get", None),
    "annotate": ("get", MEMBERS),
    "next-groups": ("get", MEMBERS),
    "submit": ("post", MEMBERS),
    "skip": ("post", MEMBERS),
    "undo": ("post", MEMBERS),
    "image": ("get", MEMBERS),
    "compare": ("get", MEMBERS),
    "next-pairs": ("get", MEMBERS),
    "vote": ("post", MEMBERS),
    "pair-image": ("get", REVIEWERS),  # and the person who has it on screen
    "versions": ("get", REVIEWERS),
    "version-scores": ("get", REVIEWERS),
    "download-lora": ("get", ADMINS),
    "start-comparison": ("post", ADMINS),
    "comparison": ("get", REVIEWERS),
    "stop-comparison": ("post", ADMINS),
    "dashboard": ("get", REVIEWERS),
    "dashboard-series": ("get", REVIEWERS),
    "api-access": ("get", MEMBERS),
    "people": ("get", ADMINS),
    "project-settings": ("get", ADMINS),
    "prompts": ("get", ADMINS),
    "clone-project": ("post", ADMINS),
    "archive-project": ("post", ADMINS),
    "audit-log": ("get", ADMINS),
    "export": ("get", ADMINS),
    "export-download": ("get", ADMINS),
    "import-labels": ("post", ADMINS),
    "quality": ("get", REVIEWERS),
    "quality-agreement": ("get", REVIEWERS),
    "review-list": ("get", REVIEWERS),
    "review": ("get", REVIEWERS),
    "gold": ("post", REVIEWERS),
    "start-round": ("get", ADMINS),
    "round": ("get", REVIEWERS),
    "round-metrics": ("get", REVIEWERS),
    "cancel-round": ("post", ADMINS),
    "round-grid": ("get", REVIEWERS),
    "decide-version": ("post", ADMINS),
}
PAGES = (
    "annotate",
    "dashboard",
    "start-round",
    "round",
    "people",
    "project-settings",
    "prompts",
    "audit-log",
    "export",
    "quality",
    "review-list",
    "review",
    "versions",
    "comparison",
    "compare",
)
PROJECT_PAGES = [name for name, (_, who) in TABLE.items() if who in (MEMBERS, REVIEWERS, ADMINS)]


def test_every_address_has_a_row():
    names = {p.name for p in get_resolver().url_patterns if getattr(p, "name", None)}
    assert names == set(TABLE)


@pytest.fixture
def address(project, ready, ann):
    (group,) = ready()
    training = TrainingRound.objects.create(
        project=project, number=1, base_version=project.active_version, idempotency_key="k", state="failed"
    )
    folder = paths.round_dir(training.pk) / "grid"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "before.webp").write_bytes(b"x")
    other = ModelVersion.objects.create(project=project, number=2, parent=project.active_version, path="x")
    (Path(project.active_version.path) / "pytorch_lora_weights.safetensors").write_bytes(b"x")
    comparisons.start(project, 1, other.number, None)
    pair = Pair.objects.first()
    file = paths.data(paths.pair_image(project.pk, pair.pk, "a" if pair.a_is_left else "b"))
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    arguments = {
        "next-pairs": [1],
        "vote": [1],
        "pair-image": [pair.pk, "left"],
        "download-lora": [1],
        "comparison": [1],
        "stop-comparison": [1],
        "submit": [group.pk],
        "review": [group.pk],
        "gold": [group.pk],
        "skip": [group.pk],
        "image": [group.generations.first().pk],
        "round": [1],
        "round-metrics": [1],
        "cancel-round": [1],
        "round-grid": [1, "before"],
        "decide-version": [project.active_version_id],
    }
    return lambda name: reverse(name, args=["stars", *arguments.get(name, [])])


@pytest.mark.parametrize("name", PROJECT_PAGES)
def test_a_project_shows_itself_to_its_members_only(name, address, client, person, project, tmp_path):
    method, needed = TABLE[name]
    elsewhere = create_project("other", "Other", model_dir="x", student_dir="x", prompts=[{"prompt": "x"}])
    outsider = person("outsider", None)
    outsider.memberships.create(project=elsewhere, role=Role.ADMIN)
    people = {Role.ANNOTATOR: MEMBERS, Role.REVIEWER: REVIEWERS, Role.ADMIN: ADMINS}
    assert getattr(client, method)(address(name)).status_code == 302  # to the log-in
    client.force_login(outsider)
    assert getattr(client, method)(address(name)).status_code == 404
    for role, rank in people.items():
        client.force_login(person(f"a-{role}", role))
        status = getattr(client, method)(address(name)).status_code
        assert (status == 404) == (rank < needed), (role, status)


def test_images_are_bytes_from_the_data_folder(address, client, ann):
    client.force_login(ann)
    answer = client.get(address("image"))
    assert answer["Content-Type"] == "image/webp"
    assert b"".join(answer.streaming_content)[:4] == b"RIFF"


def test_an_invitation_works_once(project, boss, client):
    token = invite(project, Role.ANNOTATOR, boss)
    form = {"username": "new", "password1": "long enough pass", "password2": "long enough pass"}
    assert client.get(f"/join/{token}/").status_code == 200
    assert client.post(f"/join/{token}/", form).url == "/p/stars/annotate/"
    assert client.get("/p/stars/annotate/").status_code == 200
    assert client.get(f"/join/{token}/").status_code == 410


def test_a_used_invitation_is_refused(project, boss, person):
    token = invite(project, Role.ANNOTATOR, boss)
    accept_invitation(token, person("x", None))
    with pytest.raises(ValueError, match="invitation"):
        accept_invitation(token, person("y", None))


def test_pages_allow_nothing_inline(client, boss, address):
    client.force_login(boss)
    for name in PAGES:
        answer = client.get(address(name))
        assert "unsafe" not in answer["Content-Security-Policy"]
        text = answer.content.decode()
        assert "<script>" not in text
        assert " style=" not in text


def test_the_start_form_explains_and_refuses(client, boss, address):
    client.force_login(boss)
    assert "Student updates in the round." in client.get(address("start-round")).content.decode()
    answer = client.post(address("start-round"), {"key": "k", "updates": "0"})
    assert answer.status_code == 400
    assert "greater than or equal to 1" in answer.content.decode()
