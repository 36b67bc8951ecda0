"""Each number is declared once, documented once, and a wrong one is named."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse
from django.utils import timezone

from webapp.labelling import leases
from webapp.lib import options

ROOT = Path(__file__).resolve().parents[3]
DECLARED = re.findall(r'_number\("(LIKESTEP_\w+)", ([\d_.]+)', Path(options.__file__).read_text())


def test_readme_has_every_variable_with_its_default():
    table = dict(re.findall(r"^\| `(LIKESTEP_\w+)` \| `([\d.]+)` \|", (ROOT / "README.md").read_text(), re.M))
    assert len(DECLARED) > 10
    for name, default in DECLARED:
        assert float(table[name]) == float(default), name


def test_the_environment_changes_them_and_a_bad_one_is_named(monkeypatch):
    code = "from webapp.lib import options; print(options.LEASE, options.RENEW, options.ROWS)"
    given = {**os.environ, "LIKESTEP_LEASE_SECONDS": "100", "LIKESTEP_PAGE_ROWS": "7"}
    run = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == ["0:01:40", "0:00:40", "7"]
    monkeypatch.setenv("LIKESTEP_TEST_NUMBER", "many")
    with pytest.raises(ImproperlyConfigured, match="LIKESTEP_TEST_NUMBER: 'many' is not a number from 1"):
        options._number("LIKESTEP_TEST_NUMBER", 3)


def test_a_lease_is_as_long_for_the_row_as_for_the_page(client, project, ready, ann, monkeypatch):
    ready()
    monkeypatch.setattr(options, "LEASE", options.LEASE * 3)
    monkeypatch.setattr(options, "RENEW", options.LEASE / 4)
    (group,) = leases.lease_groups(ann, project, 1)
    left = group.leases.get().expires_at - timezone.now()
    assert options.LEASE * 0.9 < left <= options.LEASE
    client.force_login(ann)
    page = client.get(reverse("annotate", args=[project.slug])).content.decode()
    assert f'"renew": {options.RENEW.total_seconds()}' in page
