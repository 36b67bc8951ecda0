"""How strong a LoRA is, by the settings in its file's header. Standard library only."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping


def module_scale(settings: Mapping, module: str, rank: int) -> float:
    """What B·A of one module is multiplied by, as PEFT has it: alpha / r, with `use_rslora` alpha / sqrt(r), where
    `rank_pattern` and `alpha_pattern` may name other values for modules. `settings` are diffusers' adapter settings without
    the part's name; empty ones say 1. `rank` is what the tensors have. Raises ValueError, naming the field."""
    if not settings:
        return 1.0
    said = _of_module(settings.get("rank_pattern"), module, settings.get("r", rank))
    if said != rank:
        raise ValueError(f"r: the header says {said} for {module}, but its tensors have rank {rank}")
    alpha = _of_module(settings.get("alpha_pattern"), module, settings.get("lora_alpha", rank))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha) or alpha <= 0:
        raise ValueError(f"lora_alpha: {alpha!r} of {module} is not a number above 0")
    return alpha / math.sqrt(rank) if settings.get("use_rslora") else alpha / rank


def _of_module(pattern: Mapping | None, module: str, usual: object) -> object:
    """The value of the first key that is the module's name or, after a dot, its end."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return usual
