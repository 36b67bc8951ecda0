"""The form that starts a round: what there is to learn from, presets, time and memory."""

from datetime import timedelta

from django.utils import timezone

from tests.webapp import acting
from webapp.rounds import plans, services
from webapp.rounds.models import RoundMetric, RoundPlan, TrainingRound

VALUES = {"bytes": 2e9, "has": 16e9, "flops": 1e15, "seconds": 7200}
SETTINGS = services.check_settings({})


def query(**changes):
    return {k: v for k, v in {**SETTINGS, **changes}.items() if v is not False}


def test_what_there_is_comes_first_and_presets_fill_the_form(client, project, boss, ann, ready):
    client.force_login(boss)
    page = client.get("/p/stars/rounds/start/").content.decode()
    assert "rate some groups first" in page and 'name="updates" value="60"' in page
    (group,) = ready()
    acting.submit(ann, project, group, [1, 0, 0, 0])
    page = client.get("/p/stars/rounds/start/?preset=long").content.decode()
    assert (
        "1 group with signal is there." in page
        and "4 labels in groups with signal came in; the forecast asks for 200" in page
    )
    assert 'name="updates" value="240"' in page
    project.round_settings = {"updates": 120}
    project.save()
    page = client.get("/p/stars/rounds/start/?preset=quick").content.decode()
    assert 'name="updates" value="20"' in page and 'name="validation_images" value="32"' in page


def test_a_plan_is_asked_for_once_and_shown_when_it_is_known(client, project, boss):
    client.force_login(boss)
    for _ in range(2):
        assert "are being worked out" in client.get("/p/stars/rounds/plan/", query()).content.decode()
    plan = RoundPlan.objects.get()
    assert plan.settings == SETTINGS and plans.wanted(plan.pk) == plan
    RoundPlan.objects.update(asked_at=timezone.now() - timedelta(seconds=30))
    assert "No train worker has answered" in client.get("/p/stars/rounds/plan/", query()).content.decode()
    client.get("/p/stars/rounds/plan/", query(updates=61))
    assert plans.wanted(plan.pk) is None  # only the newest question is worked on
    plan = RoundPlan.objects.get()
    plans.keep(plan.pk, VALUES)
    page = client.get("/p/stars/rounds/plan/", query(updates=61)).content.decode()
    assert "Roughly 2.0 hours" in page and "1.9\xa0GB of the machine" in page and "does not fit" not in page
    plans.keep(plan.pk, {**VALUES, "has": 1e9})
    assert "does not fit" in client.get("/p/stars/rounds/plan/", query(updates=61)).content.decode()
    assert "A setting is not as it can be" in client.get("/p/stars/rounds/plan/", query(updates=0)).content.decode()
    assert (
        "A setting is not as it can be"
        in client.get("/p/stars/rounds/plan/", query(method="flow_grpo")).content.decode()
    )


def test_the_last_round_tells_the_time_better(project):
    began = timezone.now() - timedelta(hours=1)
    last = TrainingRound.objects.create(
        project=project, number=1, base_version=project.active_version, idempotency_key="k", state="done",
        settings=SETTINGS, step=60, total=60, finished_at=began + timedelta(seconds=590),
    )  # fmt: skip
    metric = RoundMetric.objects.create(round=last, step=1, values={})
    RoundMetric.objects.filter(pk=metric.pk).update(created_at=began)
    plan = plans.ask(project, services.check_settings({"updates": 120}))
    plans.keep(plan.pk, {**VALUES, "flops": 3e15})
    plan.refresh_from_db()
    found = plans.estimate(plan)
    assert found.measured and round(found.seconds) == 1200  # by updates, while the last round's work is not known
    known = plans.ask(project, SETTINGS)
    plans.keep(known.pk, VALUES)
    assert round(plans.estimate(plan).seconds) == 1800


def test_an_error_is_told_and_asked_again_later(client, project, boss):
    client.force_login(boss)
    client.get("/p/stars/rounds/plan/", query())
    plans.keep(RoundPlan.objects.get().pk, None, "no model there")
    assert "no model there" in client.get("/p/stars/rounds/plan/", query()).content.decode()
    RoundPlan.objects.update(asked_at=timezone.now() - plans.AGAIN - timedelta(seconds=1))
    assert "are being worked out" in client.get("/p/stars/rounds/plan/", query()).content.decode()
