"""Ways to teach the few-step student, one file each; `base.Method` says what a method is."""

from __future__ import annotations

from common.settings import TDMR1Settings
from trainer.methods.base import Method


def method_class(settings: TDMR1Settings) -> type[Method]:
    """The method of a round's settings `method` and `surrogate`."""
    from trainer.methods.best_of_group import BestOfGroup
    from trainer.methods.dgpo import DGPO
    from trainer.methods.flow_grpo import FlowGRPO
    from trainer.methods.negative_aware import NegativeAware
    from trainer.methods.task_vector import TaskVector
    from trainer.methods.tdm_r1 import TDMR1
    from trainer.methods.tdm_r1_head import TDMR1Head

    explicit = TDMR1Head if settings.surrogate == "head" else TDMR1
    classes = (explicit, TaskVector, DGPO, NegativeAware, BestOfGroup, FlowGRPO)
    return {method.name: method for method in classes}[settings.method]
