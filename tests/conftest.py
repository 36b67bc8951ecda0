"""Fixtures for every test; `environment.py` has what must be there before Django."""

import logging
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.hub import start_hub
from tests.servers import S3_KEYS, start_s3
from webapp.lib.buckets import s3_storage

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def data_folder(tmp_path, settings, monkeypatch):
    """A data folder of its own: row ids start over on SQLite, and files of another test must not be found."""
    settings.LIKESTEP_DATA = tmp_path / "data"
    monkeypatch.setenv("LIKESTEP_DATA", str(tmp_path / "data"))
    settings.LIKESTEP_DATA.mkdir()
    return settings.LIKESTEP_DATA


@pytest.fixture(autouse=True)
def log_handlers():
    """The root logger's handlers, put back: `django.setup()` inside of a test would leave one that writes to that test's
    captured stderr, and what others log would fail on a closed stream."""
    before = list(logging.root.handlers)
    yield
    logging.root.handlers[:] = before


class S3:
    """An S3 server that can be stopped and started again; buckets are folders below `folder`."""

    def __init__(self, folder: Path):
        self.folder, self._port = folder, None
        self.start()

    def start(self):
        self._process, self.endpoint = start_s3(self.folder, self._port)
        self._port = int(self.endpoint.rsplit(":", 1)[1])

    def stop(self):
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    server = S3(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def bucket(s3, settings, monkeypatch):
    """An empty bucket that files are kept in; its objects are the files of this folder."""
    for name, value in S3_KEYS.items():
        monkeypatch.setenv(name, value)
    folder = s3.folder / f"bucket-{len(list(s3.folder.iterdir()))}"
    folder.mkdir()
    use_bucket(settings, s3, folder.name)
    return folder


def use_bucket(settings, s3, name):
    """What LIKESTEP_S3_BUCKET and LIKESTEP_S3_ENDPOINT do."""
    settings.LIKESTEP_S3_BUCKET = name
    settings.STORAGES = {**settings.STORAGES, "default": s3_storage(name, s3.endpoint, "us-east-1")}


@pytest.fixture
def fake_hub(monkeypatch):
    """The hub that versions are sent to, with the right token."""
    server = start_hub()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", server.token)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """The code's and the demo's, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, ROOT / "packaging" / "demo"):
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
        subprocess.run(build, cwd=project, check=True)
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheels, tmp_path_factory):
    """`likestep` of a new virtual environment with both wheels; all else is seen in the one that runs the tests."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False)
    install = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", *wheels], check=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "likestep"
