"""The doctor's table, and when it calls a machine ill."""

import pytest

from launcher import doctor
from launcher.doctor import MISSING, NOTE, OK, Finding, table


def states(check) -> list[str]:
    return [finding.state for finding in check()]


def test_a_machine_that_runs_the_tests_has_what_is_essential():
    assert set(states(doctor.python)) == {OK}
    assert MISSING not in states(doctor.torch) + states(doctor.memory) + states(doctor.disk) + states(doctor.models)
    assert states(doctor.redis) == [OK]


@pytest.mark.django_db
def test_the_database_is_asked_for_its_tables():
    assert states(doctor.database) == [OK]


def test_what_is_missing_comes_with_what_to_do(settings, tmp_path, monkeypatch):
    settings.LIKESTEP_MODEL_DIR = settings.LIKESTEP_STUDENT_DIR = tmp_path
    for finding in doctor.models():
        assert finding.state == MISSING and "pip install likestep-demo" in finding.advice
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert states(doctor.redis) == [NOTE]  # the demo has its own
    monkeypatch.setenv("REDIS_URL", settings.REDIS_URL)
    assert states(doctor.redis) == [MISSING]
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    (folder,) = doctor.disk()
    assert folder.state == MISSING and "LIKESTEP_DATA" in folder.advice


def test_only_what_is_essential_makes_it_fail(monkeypatch, capsys):
    found = [Finding("a", OK, "1"), Finding("long name", NOTE, "none", "get one")]
    monkeypatch.setattr(doctor, "findings", lambda: found)
    assert doctor.doctor([]) == 0
    assert capsys.readouterr().out == table(found) + "\n"
    assert table(found).splitlines() == [
        "a          ok       1",
        "long name  note     none",
        "                    → get one",
    ]
    found.append(Finding("b", MISSING, "none", "install it"))
    assert doctor.doctor([]) == 1
