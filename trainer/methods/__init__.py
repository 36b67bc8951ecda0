"""Ways to teach the few-step student, one file each; `base.Method` says what a method is."""

from __future__ import annotations

from trainer.methods.base import Method


def method_class(name: str) -> type[Method]:
    """The method of a round's setting `method`. Raises ValueError on an unknown name."""
    from trainer.methods.best_of_group import BestOfGroup
    from trainer.methods.dgpo import DGPO
    from trainer.methods.flow_grpo import FlowGRPO
    from trainer.methods.tdm_r1 import TDMR1

    known = {method.name: method for method in (TDMR1, DGPO, BestOfGroup, FlowGRPO)}
    if name not in known:
        raise ValueError(f"method: {name!r} is not one of {', '.join(known)}")
    return known[name]
