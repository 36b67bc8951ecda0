"""Run by test_processes.py under `accelerate launch`: passes of sharded models beside whole ones, what differs and what is
held, of each model folder given, into a file."""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from common.settings import MemorySettings
from trainer.backends import load_backend
from trainer.roles import FAKE, STUDENT, SURROGATE, TDM_R1_ROLES, TEACHER, Roles
from trainer.sampler import initial_noise

PROMPTS = ["a red star", "two blue hearts", "a green cross"]
WAYS = {
    "plain": {},
    "computed again": {"checkpointing": True, "micro_batch": 1, "text_encoders": "free"},
    "in bf16": {"half": True},
}


def passes(folder: Path, accelerator: Accelerator, **options) -> tuple[object, list[torch.Tensor]]:
    """The backend, and its embeddings, every role's velocity and gradient of an odd number of rows."""
    backend = load_backend(folder, memory=MemorySettings(**options))
    roles = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8, roles=TDM_R1_ROLES)
    backend.recompute = roles.recompute
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for role in TDM_R1_ROLES:
            for p in roles.parameters(role):
                p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
    prompts = backend.encode(PROMPTS)
    noise, t = initial_noise([1, 2, 3], backend.latent_shape), torch.tensor([0.9, 0.4, 0.1])
    found, made = [prompts.embeds], {}
    for role in (STUDENT, FAKE, SURROGATE):
        roles.use(role)
        made[role] = backend.velocity(noise, t, prompts)
        with roles.merged(TEACHER), torch.no_grad():
            found.append(backend.velocity(noise, t, prompts))
    # All passes are there before the first gradient, as in an update, and end in another order than they began.
    for role in (FAKE, SURROGATE, STUDENT):
        found.append(made[role].detach())
        gradients = torch.autograd.grad(made[role].square().sum(), roles.parameters(role))
        if options.get("shard"):
            gradients = [accelerator.reduce(gradient, "sum") for gradient in gradients]
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return backend, found


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, relative to what is compared where that is large."""
    return ((ours - theirs).abs().max() / max(1, theirs.abs().max().item())).item()


def main(output: str, *folders: str) -> None:
    """See the module."""
    torch.set_num_threads(1)
    accelerator, results = Accelerator(cpu=True), []
    for folder in map(Path, folders):
        for name, options in WAYS.items():
            _, whole = passes(folder, accelerator, **options)
            backend, shared = passes(folder, accelerator, **options, shard=True)
            blocks = backend.streamed_blocks()
            local = sum(p.to_local().nbytes for block in blocks for p in block.parameters() if hasattr(p, "to_local"))
            full = sum(p.nbytes for block in blocks for p in block.parameters() if hasattr(p, "to_local"))
            row = {"model": folder.name, "way": name, "local": local, "full": full}
            row["apart"] = [apart(ours, theirs) for ours, theirs in zip(shared, whole, strict=True)]
            results.append(row)
    if accelerator.is_main_process:
        Path(output).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
