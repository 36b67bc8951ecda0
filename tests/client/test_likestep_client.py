"""The client against a real server."""

import json

import pytest

from client.likestep_client import Likestep, LikestepError
from tests.webapp import acting
from tests.webapp.conftest import make_ready
from webapp.accounts.models import User
from webapp.api.services import create_token
from webapp.campaigns.models import Membership
from webapp.campaigns.services import create_project
from webapp.labelling import decisions
from webapp.rounds.models import ModelVersion


@pytest.fixture
def connected(live_server, tmp_path):
    prompts = [{"prompt": f"{n} moons"} for n in range(4)]
    project = create_project("moons", "Moons", model_dir="x", student_dir="x", prompts=prompts, group_size=2)
    user = User.objects.create_user("robot")
    Membership.objects.create(user=user, project=project, role="admin")
    _, text = create_token(project, user, "tests", ["admin"])
    return project, Likestep(live_server.url, "moons", token=text)


def test_a_program_goes_through_the_whole_loop(connected, tmp_path, monkeypatch):
    project, client = connected
    make_ready(project, 3)
    assert client.me()["user"] == "robot"
    rated = 0
    while tasks := client.tasks(limit=2):
        for task in tasks:
            assert client.image(task.images[0])[:4] == b"RIFF"
            for _ in range(2):  # sent again: kept once
                client.decide(task, {i.position: i.position == 0 for i in task.images}, seconds=1, key=f"r-{task.id}")
            rated += 1
    assert rated == 3
    assert client.project()["groups_with_signal"] == 3
    monkeypatch.setattr("client.likestep_client.PAGE", 2)
    assert [g.rewards for g in client.groups(state="done")] == [[1, 0]] * 3
    assert sum(v.liked for v in client.labels()) == 3
    assert client.add_prompts([{"prompt": "9 moons"}, {"prompt": "0 moons"}]) == 1
    assert [p.prompt for p in client.prompts()][-1] == "9 moons"
    assert client.export_to(tmp_path / "x.jsonl") > 0
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 6
    imported = client.import_labels(tmp_path / "x.jsonl")
    assert (imported.new, imported.known) == (0, 3)
    training = client.start_round({"updates": 2}, key="once")
    assert client.start_round({"updates": 2}, key="once") == training
    assert client.cancel_round(training.number).state == "cancelled"
    assert client.round(1).state == "cancelled" and len(list(client.rounds())) == 1
    assert client.publish(1).number == next(v.number for v in client.versions())
    assert client.create_webhook("https://example.org/", ["round.finished"])["secret"]


def test_a_program_follows_the_labels(connected, monkeypatch):
    project, client = connected
    (group,) = make_ready(project, 1)
    owner, waits = User.objects.get(username="robot"), []
    monkeypatch.setattr("client.likestep_client.time.sleep", waits.append)
    acting.submit(owner, project, group, [1, 0])
    following, now = client.follow_labels(), {}
    for _ in range(2):
        label = next(following)
        now[label.whose] = label.liked
    assert list(now.values()) == [True, False] and waits == []
    decisions.undo(owner, project)
    for _ in range(2):
        label = next(following)
        now[label.whose] = label.liked
    assert (label.change, list(now.values()), len(waits)) == ("undone", [None, None], 1)
    assert list(client.labels(after=label.id)) == []


def test_a_program_keeps_prompts_people_and_reasons(connected):
    project, client = connected
    first, second, *_ = client.prompts()
    assert (client.tag_prompts([first.id], "count"), client.withdraw_prompts([first.id, second.id])) == (1, 2)
    shown = {p.id: (p.withdrawn, p.metadata.get("tag")) for p in client.prompts()}
    assert (shown[first.id], shown[second.id]) == ((True, "count"), (True, None))
    assert client.restore_prompts([first.id, second.id]) == 2
    assert client.set_reasons(["ugly", "wrong count"]) == client.reasons() == ["ugly", "wrong count"]
    Membership.objects.create(user=User.objects.create_user("ann"), project=project, role="annotator")
    (ann,) = (m for m in client.members() if m.name == "ann")
    assert client.change_role(ann.id, "reviewer").role == "reviewer"
    client.remove_member(ann.id)
    assert [m.name for m in client.members()] == ["robot"]
    made = client.invite("reviewer")
    assert [(i.id, i.role, i.by, i.link) for i in client.invitations()] == [(made.id, "reviewer", "robot", "")]
    client.revoke_invitation(made.id)
    assert list(client.invitations()) == [] and "/join/" in made.link
    with pytest.raises(LikestepError, match="there is no open one"):
        client.revoke_invitation(made.id)


def test_a_program_ranks_versions(connected):
    project, client = connected
    for number in (2, 3):
        ModelVersion.objects.create(project=project, number=number, parent=project.active_version, path="x")
    made = client.start_blind_test([1, 2, 3], shown=3, most_votes=50)
    assert (made.versions, made.shown, made.state, made.ranking) == ([1, 2, 3], 3, "open", None)
    found = client.blind_test(made.number)
    assert [row["score"] for row in found.ranking] == [0, 0, 0] and found.winner is None
    assert [test.number for test in client.blind_tests()] == [made.number]
    assert client.stop_blind_test(made.number).state == "stopped"
    with pytest.raises(LikestepError, match="only 2 versions"):
        client.start_blind_test([1, 2], shown=3)


def test_a_program_says_why(connected):
    project, client = connected
    make_ready(project, 1)
    (task,) = client.tasks()
    client.decide(task, {0: True, 1: False}, why={1: {"reason": "ugly", "box": [0, 0.5, 0.25, 0.5]}})
    assert [(v.reason, v.box) for v in client.labels()] == [(None, None), ("ugly", [0, 0.5, 0.25, 0.5])]


def test_refusals_are_errors_with_the_servers_sentence(connected, tmp_path):
    _, client = connected
    with pytest.raises(LikestepError, match="rate some groups first") as caught:
        client.start_round()
    assert caught.value.status == 400
    (tmp_path / "x.jsonl").write_text(json.dumps({"group": 1}) + "\n")
    with pytest.raises(LikestepError, match="line 1: position: it is missing"):
        client.import_labels(tmp_path / "x.jsonl")
    with pytest.raises(LikestepError) as caught:
        Likestep(client._root.removesuffix("/api/v1"), "moons", token="ls_wrong").me()
    assert caught.value.status == 401


def test_the_line_is_tried_again(connected, monkeypatch):
    _, client = connected
    waits, real = [], client._open.__globals__["urllib"].request.urlopen
    monkeypatch.setattr("client.likestep_client.time.sleep", waits.append)

    def broken(request, timeout):
        if len(waits) < 2:
            raise ConnectionResetError("gone")
        return real(request, timeout=timeout)

    monkeypatch.setattr("client.likestep_client.urllib.request.urlopen", broken)
    assert client.me()["project"] == "moons"
    assert waits == [1, 2]
