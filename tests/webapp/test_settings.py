"""What the settings refuse, and that migrations are complete."""

import os
import subprocess
import sys

import pytest
from channels.layers import get_channel_layer
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command

from common.settings import MemorySettings
from webapp.settings import env_memory


@pytest.mark.parametrize("secret", ["", "short", "insecure-development-key-" + "x" * 40])
def test_production_needs_a_secret(secret):
    environment = {**os.environ, "DEBUG": "0", "SECRET_KEY": secret}
    run = subprocess.run([sys.executable, "manage.py", "check"], env=environment, capture_output=True, text=True)
    assert run.returncode
    assert "SECRET_KEY: set it to a long random string" in run.stderr


def test_memory_settings_are_read_and_a_bad_one_is_named(monkeypatch):
    monkeypatch.setenv("LIKESTEP_MEMORY", '{"half": true, "vae_batch": 2}')
    assert env_memory() == MemorySettings(half=True, vae_batch=2)
    for wrong, message in (("{", "Expecting"), ("[]", "docs/memory.md"), ('{"halve": true}', "halve: no such setting")):
        monkeypatch.setenv("LIKESTEP_MEMORY", wrong)
        with pytest.raises(ImproperlyConfigured, match=f"LIKESTEP_MEMORY: .*{message}"):
            env_memory()


@pytest.mark.django_db
def test_migrations_are_complete():
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_the_web_app_needs_no_torch():
    code = "import django, sys; django.setup(); import webapp.asgi, webapp.urls; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "webapp.settings"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_the_trainer_needs_no_django():
    modules = "trainer.cli, trainer.rounds, trainer.methods.distill, trainer.demo.pretrain"
    code = f"import sys, {modules}; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_quiet_socket_outlasts_its_time_out():
    layer = get_channel_layer()
    assert all(host["socket_timeout"] > layer.brpop_timeout for host in layer.hosts)
