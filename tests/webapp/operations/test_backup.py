"""One command writes everything to a file, one brings it back into an empty place; nothing half-made is left anywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from common.files import sha256_of, write_atomic, write_json
from tests.servers import with_database_name
from tests.webapp import acting
from webapp.lib import paths
from webapp.rounds.models import ModelVersion, TrainingRound

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    """PostgreSQL's client programs, from the server's wheel."""
    import pgserver

    folder = Path(pgserver.__file__).parent / "pginstall" / "bin"
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture
def lived_in(project, ready, ann):
    """A project with labels, a version and a round under way."""
    for group in ready(2):
        acting.submit_group(
            ann, project, group.pk, dict.fromkeys(range(4), True), seconds=1, idempotency_key=str(group.pk)
        )
        write_atomic(paths.data(group.trajectory_file), b"trajectory")
    version = ModelVersion.objects.create(project=project, number=2, path=paths.version("round-9"))
    write_json(paths.model_version(version.path) / "version.json", {"scores": {}})
    training = TrainingRound.objects.create(
        project=project, number=1, base_version=version, state="running", idempotency_key="k"
    )
    checkpoint = paths.round_dir(training.pk) / "checkpoint"
    write_atomic(checkpoint / "state.safetensors", b"weights")
    write_json(checkpoint / "state.json", {"step": 3, "sha256": sha256_of(checkpoint / "state.safetensors")})
    write_atomic(checkpoint.parent / "groups.jsonl", b"{}\n")
    return project


@pytest.fixture
def elsewhere(tmp_path):
    """elsewhere(*arguments): a management command on an empty database and data folder."""
    name = f"restored_{os.getpid()}"
    if connection.vendor == "postgresql":
        url = with_database_name(name)
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {name}")
    else:
        url = f"sqlite:///{tmp_path / 'restored.sqlite3'}"
    environment = {**os.environ, "DATABASE_URL": url, "LIKESTEP_DATA": str(tmp_path / "elsewhere")}

    def run(*arguments):
        command = [sys.executable, "manage.py", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    yield run
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_everything_comes_back_elsewhere(lived_in, elsewhere, tmp_path, data_folder):
    file = tmp_path / "backups" / "monday.tar"
    call_command("backup", file)
    assert [f.name for f in file.parent.iterdir()] == ["monday.tar"]
    call_command("dumpdata", output=str(tmp_path / "rows.json"), natural_foreign=True)
    run = elsewhere("restore", file)
    assert run.returncode == 0, run.stderr
    assert "were missing" not in run.stderr
    assert tree(tmp_path / "elsewhere") == tree(data_folder)
    assert len(tree(data_folder)) == 2 * 4 + 2 + 1 + 3
    rows = elsewhere("dumpdata", "--natural-foreign").stdout
    assert json.loads(rows) == json.loads((tmp_path / "rows.json").read_text())
    # New rows get new numbers.
    code = (
        "from webapp.campaigns.models import Project; from webapp.labelling.generation import top_up;"
        "print(len(top_up(Project.objects.get().pk)))"
    )
    assert int(elsewhere("shell", "--no-imports", "-c", code).stdout) > 0
    again = elsewhere("restore", file)
    assert again.returncode == 1
    assert "the database has people in it" in again.stderr


def test_a_damaged_or_cut_off_file_changes_nothing(lived_in, elsewhere, tmp_path):
    file = tmp_path / "b.tar"
    call_command("backup", file)
    whole = file.read_bytes()
    at = whole.index(b"RIFF") + 20
    for bad, message in (
        (whole[:at] + b"\0" + whole[at + 1 :], "is damaged at media/"),
        (whole[: len(whole) // 2], "is not a whole back-up"),
    ):
        file.write_bytes(bad)
        run = elsewhere("restore", file)
        assert run.returncode == 1
        assert message in run.stderr
    left = [f for f in (tmp_path / "elsewhere").rglob("*") if f.is_file()]
    assert left == []
    file.write_bytes(whole)
    assert elsewhere("restore", file).returncode == 0


def test_a_backup_that_cannot_be_finished_leaves_no_file(lived_in, tmp_path):
    file = tmp_path / "backups" / "b.tar"
    (paths.round_dir(TrainingRound.objects.get().pk) / "checkpoint" / "state.safetensors").write_bytes(b"torn")
    with pytest.raises(CommandError, match=r"checkpoint: .* is damaged"):
        call_command("backup", file)
    assert list(file.parent.iterdir()) == []
    file.touch()
    with pytest.raises(CommandError, match="exists; choose another name"):
        call_command("backup", file)
