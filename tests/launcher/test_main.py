"""One command line: what it lists, and where each command goes."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import get_commands

from common import __version__
from launcher import main as launcher

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def celery(monkeypatch):
    """The arguments that Celery is given."""
    given = []
    monkeypatch.setattr(launcher, "_celery", lambda arguments: given.append(arguments) or 0)
    return given


def test_help_lists_every_command(capsys):
    assert launcher.main([]) == 0
    text = capsys.readouterr().out
    for name in (
        "demo",
        "serve",
        "worker",
        "beat",
        "setup",
        "train",
        "generate",
        "evaluate",
        "export",
        "plan",
        "doctor",
    ):
        assert f"\n  {name} " in text


def test_no_name_is_used_twice():
    names = [*launcher.COMMANDS, *launcher.MANAGED, *launcher.trainer_commands()]
    assert len(set(names)) == len(names)
    assert set(launcher.MANAGED) <= set(get_commands())


def test_an_unknown_command_is_named(capsys):
    assert launcher.main(["dmeo"]) == 2
    assert "there is no command 'dmeo'" in capsys.readouterr().err


def test_version(capsys):
    assert launcher.main(["--version"]) == 0
    assert capsys.readouterr().out == f"likestep {__version__}\n"


def test_the_trainers_commands_are_the_trainers(capsys):
    with pytest.raises(SystemExit):
        launcher.main(["plan", "--help"])
    assert capsys.readouterr().out.startswith("usage: likestep plan")


def test_a_worker_takes_the_queues_it_is_told(celery):
    assert launcher.main(["worker", "--queue", "train", "--concurrency", "1"]) == 0
    assert launcher.main(["worker"]) == 0
    first, second = celery
    assert first[first.index("-Q") + 1] == "train" and first[-2:] == ["--concurrency", "1"]
    assert second[second.index("-Q") + 1] == "generate,train,oracle"


def test_beat_keeps_its_schedule_in_the_data_folder(celery, settings):
    assert launcher.main(["beat"]) == 0
    assert celery[0][-1] == str(settings.LIKESTEP_DATA / "beat-schedule")


def test_management_commands_run(capsys):
    assert launcher.main(["manage", "version"]) == 0
    with pytest.raises(SystemExit):
        launcher.main(["backup", "--help"])
    assert "likestep manage backup" in capsys.readouterr().out


def test_the_checkouts_script_runs_the_same(tmp_path):
    command = [sys.executable, ROOT / "likestep", "--this-python", "version"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout == f"likestep {__version__}\n", run.stderr
