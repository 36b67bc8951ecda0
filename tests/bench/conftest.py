"""The tiny model that the trainer's tests have."""

from tests.trainer.conftest import *  # noqa: F403 - fixtures
