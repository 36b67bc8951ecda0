"""Run by test_processes.py under `accelerate launch`: one update of a round, its gradients and metrics into a file."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import trainer.rounds.stages
from tests.trainer.rounds_helpers import Reddish
from trainer.roles import FAKE, STUDENT, SURROGATE
from trainer.rounds import RoundSpec, prepare


def main(spec_file: str, output: str) -> None:
    """Record each role's first gradient, as its optimizer sees it."""
    torch.set_num_threads(1)
    trainer.rounds.stages.get_oracle = {"reddish": Reddish()}.__getitem__
    spec = RoundSpec(**json.loads(Path(spec_file).read_text()))
    made = prepare(spec)
    made.method.bf16 = False
    gradients: dict[str, torch.Tensor] = {}
    for role in (SURROGATE, FAKE, STUDENT):
        step = made.method.optimizers[role].step

        def record(role=role, step=step):
            for i, p in enumerate(made.method.roles.parameters(role)):
                gradients.setdefault(f"{role}.{i}", p.grad.clone())
            step()

        made.method.optimizers[role].step = record
    made.step(0)
    if made.main:
        save_file(gradients, output, metadata={"processes": str(made.method.share.processes)})


if __name__ == "__main__":
    main(*sys.argv[1:])
