"""Every family's tiny pipeline, built and saved once."""

from functools import cache

import pytest
import torch

from tests.trainer.backends.tiny import CASES
from trainer.backends import load_backend


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A function: the folder of a case by its name."""

    @cache
    def build(name):
        torch.manual_seed(0)
        return CASES[name].build(tmp_path_factory.mktemp(name))

    return build


@pytest.fixture(scope="session", params=CASES)
def family(request, built):
    """(its case, its folder)."""
    return CASES[request.param], built(request.param)


@pytest.fixture
def backend(family):
    return load_backend(family[1])
