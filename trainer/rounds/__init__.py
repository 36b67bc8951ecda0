"""A training round, made of parts that whoever compares ways to train may put together otherwise.

`loop.run_round` is the whole; `stages.prepare` makes its parts: a source of groups, the update, the method that learns, the
judge of what is kept, and the folder.
"""

from trainer.rounds.loop import SAVE_SECONDS, run, run_round
from trainer.rounds.spec import Progress, RoundCancelled, RoundLost, RoundResult, RoundSpec, RoundState
from trainer.rounds.stages import Stages, prepare

__all__ = [
    "SAVE_SECONDS",
    "Progress",
    "RoundCancelled",
    "RoundLost",
    "RoundResult",
    "RoundSpec",
    "RoundState",
    "Stages",
    "prepare",
    "run",
    "run_round",
]
