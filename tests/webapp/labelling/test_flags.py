"""Flagged groups: out of everybody's queue and out of training, until a reviewer says otherwise."""

import pytest
from django.utils import timezone

from tests.webapp import acting
from webapp.campaigns.models import Role
from webapp.labelling import decisions, generation, leases, queries
from webapp.labelling.models import Flag, GroupDecision, Lease
from webapp.quality import counts

LIKES = {0: True, 1: False, 2: False, 3: False}


def flag(post, group, key="f", **body):
    return post(f"groups/{group.pk}/flag/", {"kind": "broken", "position": None, "key": key, **body})


def test_it_works(post, ready, ann, person, project):
    group, other = ready(2)
    bob = person("bob")
    project.overlap = 2
    project.save()
    leases.lease_groups(bob, project, 1)
    assert flag(post, group, position=2, note="grey noise").status_code == 200
    group.refresh_from_db()
    assert group.state == "flagged"
    row = Flag.objects.get()
    assert (row.generation.position, row.kind, row.note, row.user) == (2, "broken", "grey noise", ann)
    assert not Lease.objects.filter(group=group, expires_at__gt=timezone.now()).exists()
    assert leases.lease_groups(bob, project, 3) == [other]
    assert leases.lease_groups(ann, project, 3) == [other]


def test_a_replay_flags_once(post, ready):
    (group,) = ready()
    for _ in range(2):
        assert flag(post, group).status_code == 200
    assert Flag.objects.count() == 1
    assert post(f"groups/{group.pk}/skip/", {"reason": "", "key": "f"}).status_code == 409


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"kind": "ugly"}, "kind"),
        ({"position": 9}, "no image 10"),
        ({"position": "1"}, "position"),
        ({"position": -1}, "position"),
        ({"note": 3}, "note"),
        ({"key": ""}, "idempotency_key"),
    ],
)
def test_bad_input_names_the_field(post, ready, body, message):
    (group,) = ready()
    answer = flag(post, group, **body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert not Flag.objects.exists()


def test_undo_takes_the_flag_back(post, ready, ann):
    (group,) = ready()
    flag(post, group)
    assert post("undo/", {}).json()["group"]["group"] == acting.task(ann, group)
    group.refresh_from_db()
    assert group.state == "ready"
    assert not Flag.objects.exists()
    assert flag(post, group, key="g").status_code == 200


def test_work_that_was_done_counts_but_is_not_used_while_the_flag_is_open(post, ready, person, project, client):
    (group,) = ready()
    flag(post, group)
    acting.submit_group(person("bob"), project, group.pk, LIKES, seconds=1, idempotency_key="b")
    assert not queries.labelled_groups(project).exists()
    assert counts.groups_with_signal_since(project, None) == 0
    client.force_login(person("rev", Role.REVIEWER))
    html = client.get("/p/stars/flags/").content.decode()
    assert f'data-group="{group.pk}"' in html
    assert client.post("/p/stars/flags/", {"group": group.pk, "decision": "restore"}).status_code == 302
    group.refresh_from_db()
    assert group.state == "done"
    assert queries.labelled_groups(project).get() == group
    assert f'data-group="{group.pk}"' not in client.get("/p/stars/flags/").content.decode()


def test_a_group_kept_out_stays_out(post, ready, person, project):
    (group,) = ready()
    flag(post, group)
    decisions.resolve_flags(person("rev", Role.REVIEWER), project, group.pk, restore=False)
    post("undo/", {})
    group.refresh_from_db()
    assert group.state == "flagged"
    assert leases.lease_groups(person("bob"), project) == []
    assert not queries.flagged_groups(project).exists()


def test_a_restored_group_may_be_flagged_again_by_the_same_person(post, ready, person, project):
    (group,) = ready()
    flag(post, group)
    decisions.resolve_flags(person("rev", Role.REVIEWER), project, group.pk, restore=True)
    post("undo/", {"key": "f"})
    assert flag(post, group, key="again").status_code == 200
    assert queries.flagged_groups(project).get() == group


def test_an_annotator_cannot_resolve(post, ready, client):
    (group,) = ready()
    flag(post, group)
    assert client.post("/p/stars/flags/", {"group": group.pk, "decision": "restore"}).status_code == 404


def test_a_group_of_another_project_is_not_there(post, ready, project, ann, tmp_path):
    from webapp.campaigns.services import create_project

    other = create_project("o", "O", model_dir="x", student_dir="x", prompts=[{"prompt": "x"}], group_size=4)
    foreign = generation.top_up(other.pk)[0]
    assert flag(post, foreign).status_code == 400
    assert not GroupDecision.objects.exists()
