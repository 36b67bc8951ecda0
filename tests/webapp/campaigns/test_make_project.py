"""`manage.py make_project`: a project of one's own model, or nothing; oracles of the server by name."""

import json

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from webapp.accounts.models import User
from webapp.campaigns.models import Project, Prompt
from webapp.campaigns.services import CampaignError, check_label_source
from webapp.settings import env_oracles

GENEVAL = {"geneval": "geneval:detector=/m2f,clip=/clip"}


@pytest.fixture
def folders(tmp_path, db):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "pytorch_lora_weights.safetensors").write_bytes(b"x")
    (tmp_path / "p.csv").write_text("caption,split\na cat,train\na dog,validation\na cat,train\n")
    User.objects.create_superuser("admin", password="correct horse")
    return tmp_path


@pytest.fixture
def make(folders):
    def run(**options):
        options = {"model": folders / "model", "student": folders / "student", "prompts": folders / "p.csv"} | options
        call_command("make_project", "sd35", **options)

    return run


def test_it_makes_a_project_that_can_be_worked_on(make, folders, settings, capsys):
    settings.LIKESTEP_ORACLES = settings.LIKESTEP_ORACLES | GENEVAL
    make(prompt_column="caption", oracle="geneval", label_source="oracle", round_settings='{"rank": 8}', ready_target=1)
    project = Project.objects.get(slug="sd35")
    assert sorted(project.prompts.values_list("text", "split")) == [("a cat", "train"), ("a dog", "validation")]
    assert (project.model_dir, project.oracle, project.round_settings) == (
        str(folders / "model"),
        "geneval",
        {"rank": 8},
    )
    assert project.active_version.path == str(folders / "student")
    assert project.memberships.get().role == "admin"
    assert project.groups.count() == 1
    told = capsys.readouterr().out
    assert "p.csv, line 4: the same prompt as line 2" in told and "1 train, 1 validation prompts" in told


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "no column is called prompt"),
        ({"prompt_column": "caption", "oracle": "beauty"}, "oracle: 'beauty' is not one of"),
        ({"prompt_column": "caption", "label_source": "oracle"}, "oracle: choose one"),
        ({"prompt_column": "caption", "round_settings": '{"rank": 0}'}, "rank: 0 is out of range"),
        ({"prompt_column": "caption", "round_settings": "["}, "Expecting value"),
        ({"prompt_column": "caption", "admin": "nobody"}, "--admin: there is no account 'nobody'"),
        ({"prompt_column": "caption", "round_settings": "[]"}, "--round-settings: give a JSON object"),
    ],
)
def test_what_cannot_be_used_makes_nothing(make, options, sentence):
    with pytest.raises(CommandError, match=sentence):
        make(**options)
    assert (Project.objects.count(), Prompt.objects.count()) == (0, 0)


def test_a_folder_without_a_model_is_named(make, folders):
    with pytest.raises(CommandError, match=r"--student: there is no .*safetensors"):
        make(student=folders)


def test_the_servers_oracles_are_chosen_by_name_only(monkeypatch, settings):
    monkeypatch.setenv("LIKESTEP_ORACLES", json.dumps(GENEVAL))
    settings.LIKESTEP_ORACLES = env_oracles()
    check_label_source("oracle", "geneval")
    check_label_source("oracle", "demo")
    with pytest.raises(CampaignError, match="is not one of scenes, ocr, demo, geneval"):
        check_label_source("oracle", GENEVAL["geneval"])


@pytest.mark.parametrize("text", ["[]", "{", '{"a b": "ocr"}', '{"a": 3}', '{"a": ""}'])
def test_a_bad_list_of_oracles_stops_the_start(monkeypatch, text):
    monkeypatch.setenv("LIKESTEP_ORACLES", text)
    with pytest.raises(ImproperlyConfigured, match="LIKESTEP_ORACLES"):
        env_oracles()
