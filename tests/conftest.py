"""Fixtures for every test; `environment.py` has what must be there before Django."""

import pytest


@pytest.fixture(autouse=True)
def data_folder(tmp_path, settings, monkeypatch):
    """A data folder of its own: row ids start over on SQLite, and files of another test must not be found."""
    settings.LIKESTEP_DATA = tmp_path / "data"
    monkeypatch.setenv("LIKESTEP_DATA", str(tmp_path / "data"))
    settings.LIKESTEP_DATA.mkdir()
    return settings.LIKESTEP_DATA
