"""The two wheels: what they ask for, what is in them, and the demo of an installation outside the checkout."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.compose import Person
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SERVER_ONLY = {"psycopg2-binary", "boto3", "django-storages"}  # pinned for everybody, asked for by extras
MOVED = ("templates", "static", "locale")  # to webapp/ in the wheel


def asked(extra: str = "") -> dict[str, Requirement]:
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    found = {canonicalize_name(need.name): need for need in map(Requirement, lines)}
    return {name: need for name, need in found.items() if not name.startswith("likestep")}


def pinned(file: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)(?:\[.*\])?==(\S+)", (ROOT / file).read_text(), re.M)
    return {canonicalize_name(name): version for name, version in found}


def test_the_package_asks_for_what_is_pinned():
    base, everything = asked(), asked() | asked("s3") | asked("server")
    for name, version in pinned("requirements.txt").items():
        assert name in everything and everything[name].specifier.contains(version), f"pyproject.toml: {name}"
        assert (name in base) != (name in SERVER_ONLY), name
    assert set(everything) == set(pinned("requirements.txt")) | set(pinned("requirements-server.txt"))
    dev = asked("dev")
    assert set(dev) == set(pinned("requirements-dev.txt"))
    assert all(dev[name].specifier.contains(version) for name, version in pinned("requirements-dev.txt").items())


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Both, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, ROOT / "packaging" / "demo"):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=project, check=True
        )
    return sorted(folder.glob("*.whl"))


def test_the_wheels_have_every_file(wheels):
    code, demo = (set(zipfile.ZipFile(wheel).namelist()) for wheel in wheels)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    tracked = listed.stdout.splitlines() or pytest.skip("not a git checkout")
    rooms = ("common", "launcher", "trainer", "webapp", "workers", *MOVED)
    wanted = {f"webapp/{name}" if name.startswith(MOVED) else name for name in tracked if name.split("/")[0] in rooms}
    wanted = {name for name in wanted if (ROOT / name.removeprefix("webapp/")).exists() or (ROOT / name).exists()}
    assert len(wanted) > 200 and wanted <= code, wanted - code
    assert {name.split("/")[0] for name in code if "dist-info" not in name} == set(rooms) - set(MOVED)
    models = {name.removeprefix("models/") for name in tracked if re.match("models/.+/", name)}
    assert {f"likestep_demo/{name}" for name in models} <= demo
    for wheel, has in zip(wheels, (code, demo), strict=True):
        assert any("LICENSE" in name for name in has), wheel.name


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory):
    """`likestep` of a new virtual environment with both wheels; all else is seen in the one that runs the tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        *wheels,
    ]
    subprocess.run(install, check=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin" / "likestep"


def environment(home: Path) -> dict[str, str]:
    """Nothing that leads back to the checkout."""
    away = ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE", "PYTHONPATH", "XDG_DATA_HOME")
    kept = {k: v for k, v in os.environ.items() if k not in away and not k.startswith("LIKESTEP_")}
    return kept | {"HOME": str(home), "OMP_NUM_THREADS": "2"}


def test_the_installed_demo_shows_a_group(installed, tmp_path):
    command = [installed, "demo", "--port", str(free_port())]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, text=True)
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C stops" in line:
                break
        text = "".join(said)
        (address,) = re.findall(r"open (http\S+)", text) or pytest.fail(text)
        annotator = Person(address, "annotator", dict(re.findall(r"as (\w+) with password (\S+)", text))["annotator"])
        group = annotator.next_group()
        assert annotator.get(group["images"][0]["url"]).content[8:12] == b"WEBP"
        annotator.rate(group)
        assert "Abmelden" in annotator.http.get(address, headers={"Accept-Language": "de"}).text
        assert annotator.get("/static/js/annotate.js").text
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    data = tmp_path / ".local" / "share" / "likestep"
    assert (data / "likestep.sqlite3").exists()
    assert (data / "models" / "demo" / "model_index.json").exists()
