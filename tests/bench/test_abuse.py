"""What members try: it holds against this server, and the checks see it where it does not."""

import pytest

from bench.abuse import CHECKS, Instance, crowds, inputs, members, network, sockets
from tests.servers import database_url, serve
from tests.webapp.conftest import make_ready
from webapp.accounts.models import User
from webapp.campaigns.models import Membership, Role
from webapp.campaigns.services import create_project
from webapp.labelling import leases
from webapp.labelling.models import Flag, GroupDecision

SMALL = {
    crowds: {
        "EACH": 10,
        "ROUNDS": 1,
        "SECONDS": 2.0,
        "WARM": 0.5,
        "THINK": 0.3,
        "WORST": 30,
    },  # others use this machine
    sockets: {"FRAMES": 2, "WANTED": 25, "SLOWEST": 15},
    inputs: {
        "FIELDS": ("overlap", "gold_rate"),
        "HUGE": ("1501", "9" * 5000),
        "OTHER": ("٣",),
        "SLOWEST": 30,
        "HOSTILE": {kind: inputs.HOSTILE[kind] for kind in ("zip", "deep json")},
    },
    network: {},
}
MINE = ("other people's labels", "flags", "which groups are gold")


@pytest.fixture
def instance(live_server, monkeypatch, settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.LIKESTEP_FLAGS_PER_HOUR = 2
    prompts = [{"prompt": f"{n} moons"} for n in range(6)]
    project = create_project("demo", "Demo", model_dir="x", student_dir="x", prompts=prompts, group_size=4)
    user = User.objects.create_user("annotator", password="correct horse")
    Membership.objects.create(user=user, project=project, role=Role.ANNOTATOR)
    first = make_ready(project, 6)[0].pk
    monkeypatch.setattr(members, "NUMBERS", range(first, first + 3))
    return Instance(live_server.url, "demo", {"annotator": "correct horse"})


def test_it_holds(instance):
    for name in MINE:
        outcome = CHECKS[name](instance)
        assert outcome.held, (name, outcome.seen)
    assert not GroupDecision.objects.exists() and not Flag.objects.exists()  # nothing stays behind


def test_groups_that_anybody_may_decide_on_are_seen(instance, monkeypatch):
    known = leases.group_of

    def anybody(user, project, task):
        if not task.isdecimal() or not project.groups.filter(pk=int(task)).exists():
            return known(user, project, task)
        leases.give(user, int(task), lasts=False)
        return int(task)

    monkeypatch.setattr(leases, "group_of", anybody)
    assert not CHECKS[MINE[0]](instance).held


@pytest.mark.django_db(transaction=True)
def test_the_others_hold_against_the_server_itself(monkeypatch, data_folder, settings):
    project = create_project("demo", "Demo", model_dir="x", student_dir="x", prompts=[{"prompt": "a"}], group_size=4)
    for name, role in (("annotator", Role.ANNOTATOR), ("admin", Role.ADMIN)):
        user = User.objects.create_user(name, password="correct horse")
        Membership.objects.create(user=user, project=project, role=role)
    make_ready(project, 2)
    for module, values in SMALL.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    with serve(data_folder / "web.log", DATABASE_URL=database_url(), LIKESTEP_DATA=str(data_folder)) as port:
        passwords = dict.fromkeys(("annotator", "admin"), "correct horse")
        instance = Instance(f"http://127.0.0.1:{port}", "demo", passwords)
        for name in set(CHECKS) - set(MINE):
            outcome = CHECKS[name](instance)
            assert outcome.held, (name, outcome.seen)
