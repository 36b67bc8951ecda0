"""The tiny model that the trainer's tests have."""

from tests.trainer.conftest import *  # noqa: F403 - fixtures


def dots(figure) -> int:
    """How many dots a plot has."""
    return sum(len(drawn.get_offsets()) for panel in figure.axes for drawn in panel.collections)
