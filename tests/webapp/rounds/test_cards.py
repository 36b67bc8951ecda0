"""What fits onto a card: the form asks a worker, and an admin takes what it found."""

import pytest

from common.settings import MemorySettings
from webapp.campaigns.models import AuditEntry
from webapp.campaigns.services import CampaignError, clone_project, update_project
from webapp.rounds import memory, plans, services
from webapp.rounds.models import RoundPlan

VALUES = {"bytes": 11.8e9, "has": 12e9, "flops": 1e15, "seconds": 7200}
INT8 = {
    "half": True,
    "text_encoders": "free",
    "vae_batch": 1,
    "micro_batch": 4,
    "checkpointing": True,
    "weights": "int8",
}
SETTINGS = services.check_settings({})


def query(**changes):
    return {k: v for k, v in {**SETTINGS, **changes}.items() if v is not False}


def look(client, **changes):
    return client.get("/p/stars/rounds/card/", query(**changes)).content.decode()


def test_what_fits_is_asked_of_a_worker_and_taken_with_one_click(client, project, boss):
    client.force_login(boss)
    page = client.get("/p/stars/rounds/start/").content.decode()
    assert 'value="24GB"' in page and "as the machine that trains is set up" in page
    assert "is being worked out" in look(client, card="12GB")
    asked = RoundPlan.objects.get()
    assert (asked.card, asked.settings) == ("12GB", SETTINGS)
    plans.keep(asked.pk, {**VALUES, "options": INT8})
    page = look(client, card="12GB")
    assert "weights as int8 codes" in page and "4 images a pass" in page and "roughly 2.0 hours" in page
    assert "11.8 GB of 12.0 GB" in page
    answer = client.post("/p/stars/rounds/memory/", {"plan": asked.pk}, headers={"HX-Request": "true"})
    assert answer["HX-Trigger"] == "memory-chosen" and "weights as int8 codes" in answer.content.decode()
    project.refresh_from_db()
    assert project.round_memory == INT8 and MemorySettings.from_json(INT8)
    assert AuditEntry.objects.latest("pk").detail["round_memory"][1]["weights"] == "int8"
    assert "So it is set" in look(client, card="12GB")
    assert clone_project(project, "", "Copy", boss).round_memory == INT8


def test_the_worker_may_find_it_when_a_round_begins(client, project, boss, tmp_path):
    client.force_login(boss)
    assert client.post("/p/stars/rounds/memory/", {"choice": "auto"}).status_code == 302
    project.refresh_from_db()
    assert project.round_memory == {"auto": True}
    assert "when a round begins" in client.get("/p/stars/rounds/memory/").content.decode()
    client.post("/p/stars/rounds/memory/", {"choice": "machine"})
    project.refresh_from_db()
    assert project.round_memory == {}


def test_what_does_not_fit_cannot_be_taken(client, project, boss):
    client.force_login(boss)
    look(client, card=plans.WORKER)
    asked = RoundPlan.objects.get()
    plans.keep(asked.pk, {**VALUES, "options": None})
    assert "Nothing makes it fit" in look(client, card=plans.WORKER)
    for plan in (asked.pk, "9" * 30, "x", ""):
        answer = client.post("/p/stars/rounds/memory/", {"plan": plan}, headers={"HX-Request": "true"})
        assert "choose the card once more" in answer.content.decode() and "HX-Trigger" not in answer
    project.refresh_from_db()
    assert project.round_memory == {}


def test_one_question_about_a_card_and_one_about_the_machine_are_worked_on(client, project, boss):
    client.force_login(boss)
    client.get("/p/stars/rounds/plan/", query())
    look(client, card="12GB")
    look(client, card="16GB")
    assert sorted(RoundPlan.objects.values_list("card", flat=True)) == ["", "16GB"]
    assert look(client, card="13GB").strip() == look(client).strip() == "" or "setting" in look(client, card="13GB")
    assert "A setting is not as it can be" in look(client, card="12GB", updates=0)
    settings_page = client.get("/p/stars/rounds/card/", {"card": "80GB"})  # the project's own settings
    assert settings_page.status_code == 200 and RoundPlan.objects.filter(card="80GB").get().settings == SETTINGS


def test_another_choice_is_another_plan(project, boss):
    first = plans.ask(project, SETTINGS)
    card = plans.ask(project, SETTINGS, "12GB")
    update_project(project, boss, round_memory={"half": True})
    project.refresh_from_db()
    assert plans.ask(project, SETTINGS).pk != first.pk and plans.ask(project, SETTINGS, "12GB").pk == card.pk


@pytest.mark.parametrize(
    "value", [{"half": 1}, {"streamed": -1}, {"embeddings": "/etc"}, {"x": 1}, [1], {"weights": "x" * 900}]
)
def test_options_are_the_trainers_own(project, boss, value):
    with pytest.raises(CampaignError, match=r"^round_memory: "):
        update_project(project, boss, round_memory=value)


def test_every_option_of_the_ladder_has_words():
    options = {
        "half": True, "text_encoders": "free", "vae_batch": 1, "micro_batch": 1, "checkpointing": True, "vae_offload": True,
        "weights": "nf4", "streamed": 2, "vae_tiling": True,
    }  # fmt: skip
    assert len(memory.words(options)) == len(options) and memory.words({"weights": "none", "half": False}) == []
