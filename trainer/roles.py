"""Five roles on one frozen transformer: the teacher is the bare backbone, the others are PEFT LoRA adapters on it.

The moving averages are adapters of their own, so evaluating one never copies weights through the live adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch.utils.checkpoint import checkpoint

TEACHER = "teacher"
STUDENT, STUDENT_EMA = "student", "student_ema"
FAKE = "fake"
SURROGATE, SURROGATE_EMA = "surrogate", "surrogate_ema"
MERGE_BELOW = 100_000_000  # parameters, adapters included
TDM_ROLES = (STUDENT, STUDENT_EMA, FAKE)
TDM_R1_ROLES = (STUDENT, STUDENT_EMA, FAKE, SURROGATE, SURROGATE_EMA)


class Roles:
    """The adapters of a diffusers transformer, by name. Base weights are frozen; every adapter starts as the identity.

    PEFT's own `set_adapter` flips `requires_grad`, and a parameter whose flag is off when `backward` runs silently gets no
    gradient, even if the graph was built while it was on. Several roles take part in one update here, so switching only
    names the active adapter and the flags stay as they are: on for the trained roles, off for the averages.
    """

    def __init__(
        self,
        transformer: torch.nn.Module,
        targets: Sequence[str],
        *,
        rank: int,
        alpha: float,
        roles=TDM_ROLES,
        gaussian: bool = False,
    ):
        """`gaussian`: A starts normal with a deviation of 1 / rank instead of PEFT's uniform numbers; B starts at 0."""
        self.transformer = transformer.requires_grad_(False)
        self.names = tuple(roles)
        for name in self.names:
            config = LoraConfig(
                r=rank,
                lora_alpha=alpha,
                target_modules=list(targets),
                init_lora_weights="gaussian" if gaussian else True,
                lora_dropout=0.0,
            )
            transformer.add_adapter(config, adapter_name=name)
        self._layers = [m for m in transformer.modules() if isinstance(m, LoraLayer)]
        for layer in self._layers:
            # All is fp32, or runs under autocast, which would cast PEFT's fp32 copy of each input back: 8% of a pass.
            layer.cast_input_dtype_enabled = False
        # A copy of a large model's weights costs more than its adapters' share of a pass; bf16 and codes would round the
        # adapter off.
        small = sum(p.numel() for p in transformer.parameters()) < MERGE_BELOW
        self.mergeable = small and all(_takes_changes(layer.get_base_layer()) for layer in self._layers)
        self._parameters: dict[str, list[torch.nn.Parameter]] = {name: [] for name in self.names}
        for key, p in transformer.named_parameters():
            if ".lora_" in key:
                role = key.rsplit(".", 2)[-2]
                self._parameters[role].append(p)
                p.data = p.data.float()  # whatever the backbone is held in
                p.requires_grad_(not role.endswith("_ema"))
        for name in self.names:
            if name.endswith("_ema"):
                self.copy(name.removesuffix("_ema"), name)
        self.use(STUDENT)

    def use(self, role: str) -> None:
        """Make `role` the one whose velocity the transformer gives. Raises KeyError on an unknown role."""
        if role != TEACHER and role not in self._parameters:
            raise KeyError(f"role: {role!r} is not one of {', '.join((TEACHER, *self.names))}")
        self.active = role
        for layer in self._layers:
            layer._disable_adapters = role == TEACHER
            if role != TEACHER:
                layer._active_adapter = [role]

    def recompute(self, function: Callable, *arguments):
        """`function(*arguments)` without keeping what its gradient needs: it is computed again in the backward pass, under
        the role that is active now. Other roles act in between, and torch's own checkpointing knows nothing of roles."""
        role = self.active

        @contextmanager
        def again() -> Iterator[None]:
            now = self.active
            self.use(role)
            try:
                yield
            finally:
                self.use(now)

        return checkpoint(
            function,
            *arguments,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing in a pass is random
            context_fn=lambda: (nullcontext(), again()),
        )

    @contextmanager
    def merged(self, role: str) -> Iterator[None]:
        """Make `role` the active one with its adapter added into the weights, for passes without gradient.

        A small model spends a third of a pass in the adapters' own products. The backbone's tensors are put aside and put
        back, not subtracted from, so they stay the same to the bit. Inside, adapters cannot be trained. Costs one copy of
        the adapted weights.
        """
        if role == TEACHER or not self.mergeable:
            self.use(role)
            yield
            return
        self.use(TEACHER)
        kept = []
        try:
            with torch.no_grad():
                for layer in self._layers:
                    base = layer.get_base_layer()
                    kept.append((base, base.weight.data))
                    base.weight.data = base.weight.data + layer.get_delta_weight(role).to(base.weight.dtype)
            yield
        finally:
            for base, weight in kept:
                base.weight.data = weight
            self.use(role)

    def fold(self, role: str) -> int:
        """Add an adapter to the weights, which must be whole, for good and take all adapters away; how many layers that
        changed."""
        changed = 0
        with torch.no_grad():
            for layer in self._layers:
                base = layer.get_base_layer()
                before = base.weight.data
                base.weight.data = before + layer.get_delta_weight(role).to(before.dtype)
                changed += not torch.equal(before, base.weight.data)
        self.remove()
        return changed

    def remove(self) -> None:
        """Give the transformer back as it was before, without adapters."""
        self.transformer.unload_lora()
        self._layers, self._parameters = [], {}

    def parameters(self, role: str) -> list[torch.nn.Parameter]:
        """The adapter's own tensors, in a fixed order."""
        return self._parameters[role]

    @torch.no_grad()
    def copy(self, source: str, target: str) -> None:
        """Make adapter `target` equal to `source`."""
        torch._foreach_copy_(self._parameters[target], self._parameters[source])

    @torch.no_grad()
    def add(self, target: str, one: str, other: str, times: float) -> None:
        """Make `target` the sum of `one` and `times` the change of `other`, as near to it as the adapters' rank allows."""
        for layer in self._layers:
            up, down = layer.lora_B, layer.lora_A
            first, second = ((up[role].weight, down[role].weight) for role in (one, other))
            sums = nearest_sum(first, (times * second[0], second[1]), len(first[1]))
            for place, value in zip((up, down), sums, strict=True):
                place[target].weight.copy_(value.view_as(place[target].weight))

    @torch.no_grad()
    def average(self, source: str, target: str, decay: float) -> None:
        """`target ← decay·target + (1 - decay)·source`."""
        torch._foreach_lerp_(self._parameters[target], self._parameters[source], 1 - decay)

    def state_dict(self, role: str) -> dict[str, torch.Tensor]:
        """The adapter in PEFT's names (`….lora_A.weight`), detached copies."""
        state = get_peft_model_state_dict(self.transformer, adapter_name=role)
        return {k: v.detach().clone() for k, v in state.items()}

    def load_state_dict(self, role: str, state: dict[str, torch.Tensor]) -> None:
        """Load what `state_dict` gave. Raises ValueError, naming the first, on missing, unknown or misshapen tensors."""
        own = get_peft_model_state_dict(self.transformer, adapter_name=role)
        if wrong := sorted(set(own) ^ set(state)):
            problem = "is missing" if wrong[0] in own else "is not one of this model's LoRA tensors"
            raise ValueError(f"LoRA: tensor {wrong[0]} {problem}; was it made for another model or with other targets?")
        for key, value in own.items():
            if value.shape != state[key].shape:
                raise ValueError(f"LoRA: {key} has shape {tuple(state[key].shape)}, expected {tuple(value.shape)}")
        flags = [p.requires_grad for p in self._parameters[role]]
        set_peft_model_state_dict(self.transformer, state, adapter_name=role)
        for p, flag in zip(self._parameters[role], flags, strict=True):
            p.requires_grad_(flag)

    def part(self, role: str) -> RolePart:
        """One adapter as something with `state_dict` and `load_state_dict`, for checkpoints."""
        return RolePart(self, role)


def nearest_sum(
    one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor], rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, A) of `rank` whose product (out, in) is nearest to the sum of both (B, A)'s products in the least squares sense,
    with equally long factors. B (out, r, …) and A (r, in, …); nothing of the products' own size is made."""
    up = torch.cat([pair[0].flatten(1) for pair in (one, other)], 1)
    down = torch.cat([pair[1].flatten(1) for pair in (one, other)], 0)
    (left, inner), (right, outer) = torch.linalg.qr(up), torch.linalg.qr(down.T)
    u, size, v = torch.linalg.svd(inner @ outer.T, full_matrices=False)
    root = size[:rank].sqrt()
    made_up, made_down = left @ u[:, :rank] * root, root[:, None] * (v[:rank] @ right.T)
    short = rank - len(root)  # of a layer that is narrower than the rank
    return torch.nn.functional.pad(made_up, (0, short)), torch.nn.functional.pad(made_down, (0, 0, 0, short))


def _takes_changes(layer: torch.nn.Module) -> bool:
    """Whether a layer's weight is there, whole and in fp32; `QuantisedLinear` says that its own is not."""
    return getattr(layer, "whole", True) and layer.weight.dtype == torch.float32


class RolePart:
    """The view of one role that checkpoints save and load."""

    def __init__(self, roles: Roles, role: str):
        self._roles, self._role = roles, role

    def state_dict(self) -> dict[str, torch.Tensor]:
        """See `Roles.state_dict`."""
        return self._roles.state_dict(self._role)

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """See `Roles.load_state_dict`."""
        self._roles.load_state_dict(self._role, state)
