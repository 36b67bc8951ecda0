"""The workers' memory settings come from the machine's environment."""

import pytest

from trainer.settings import MemorySettings
from workers.models import memory


def test_memory_settings_are_read_and_a_bad_one_is_named(settings):
    assert memory() == MemorySettings()
    settings.LIKESTEP_MEMORY = '{"half": true, "vae_batch": 2}'
    assert memory() == MemorySettings(half=True, vae_batch=2)
    for wrong, message in (
        ("{", "Expecting"),
        ("[]", "LIKESTEP_MEMORY"),
        ('{"halve": true}', "halve: no such setting"),
    ):
        settings.LIKESTEP_MEMORY = wrong
        with pytest.raises(ValueError, match=f"LIKESTEP_MEMORY: .*{message}|{message}: .*"):
            memory()
