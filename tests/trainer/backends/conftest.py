"""Every family's tiny pipeline, built and saved once."""

import pytest
import torch

from tests.trainer.backends.tiny import CASES
from trainer.backends import load_backend


@pytest.fixture(scope="session", params=CASES)
def family(request, tmp_path_factory):
    """(its case, its folder)."""
    torch.manual_seed(0)
    case = CASES[request.param]
    return case, case.build(tmp_path_factory.mktemp(request.param))


@pytest.fixture
def backend(family):
    return load_backend(family[1])
