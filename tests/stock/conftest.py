"""A labelled project, its exports, and the programs that others read them with, each in an environment of its own."""

import io
import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.webapp.conftest import ann, boss, english, person, project, quick_passwords, ready  # noqa: F401
from tests.webapp.exports.conftest import fetch, labelled  # noqa: F401

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@pytest.fixture
def unpacked(fetch, tmp_path):  # noqa: F811 - it is pytest's
    """unpacked(format, container, **filters): the folder of an archive."""

    def get(format, container, **filters):
        folder = tmp_path / f"{format}-{container}"
        zipfile.ZipFile(io.BytesIO(fetch(format, container, **filters))).extractall(folder)
        return folder

    return get


@pytest.fixture
def run():
    """run(environment, script, *arguments): what a script prints last, as JSON, in the Python of `.venv-<environment>`."""

    def call(environment, script, *arguments):
        python = ROOT / f".venv-{environment}" / "bin" / "python"
        if not python.exists():
            pytest.skip(
                f".venv-{environment} is not there; `./likestep test` makes it of tests/stock/{environment}.txt"
            )
        command = [python, HERE / script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return call
