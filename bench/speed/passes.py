"""What a pass costs: the student's adapter beside the weights or merged into them, and the decoder's layout and precision.

    python -m bench.speed.passes --threads 1

Every figure is the median of `--rounds` turns in which all variants run once, so that the machine's drift hits them alike.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path

import torch

from bench.harness import Run, add_work, keep, told
from common.settings import TDMR1Settings
from trainer.backends import load_backend
from trainer.backends.cpu import restore
from trainer.cli import MODEL, STUDENT
from trainer.methods.tdm_r1 import TDMR1
from trainer.roles import STUDENT as ROLE
from trainer.roles import TEACHER


def variants(batch: int) -> dict:
    """Name → what to time: passes of `batch` images and decoding of as many."""
    made = TDMR1(load_backend(MODEL), TDMR1Settings(), parent=Path(STUDENT))
    backend = made.backend
    conditioning = backend.encode(["a red circle and a blue star"] * batch)
    x, t = torch.randn((batch, *backend.latent_shape)), torch.full((batch,), 0.5)
    stock = copy.deepcopy(backend.pipeline.vae).to(memory_format=torch.contiguous_format)
    restore(stock)

    @torch.no_grad()
    def beside():
        made.velocity(ROLE, x, t, conditioning)

    @torch.no_grad()
    def decode_stock():
        for part in x.split(16):
            stock.decode(part)

    return {
        "pass, teacher": lambda: made.fixed_velocity(TEACHER, x, t, conditioning),
        "pass, adapter beside the weights": beside,
        "pass, adapter merged": lambda: made.fixed_velocity(ROLE, x, t, conditioning),
        "decode, as loaded": decode_stock,
        "decode, channels last and folded": lambda: backend.decode(x),
        "decode, channels last, folded and bf16": lambda: backend.decode(x, bf16=True),
    }


def main() -> None:
    """Print the table as Markdown: seconds, and the ratio to the first of its kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    add_work(parser, "passes")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    made = variants(a.batch)
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(a.rounds + 1):
        for name, run in made.items():
            start = time.perf_counter()
            run()
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - start)
    for name, values in seconds.items():
        keep(a.work, Run.made_here(name, None, told(a), {"seconds": values}))
    middle = {name: statistics.median(s) for name, s in seconds.items()}
    print(f"{a.batch} images, {a.threads} thread(s), median of {a.rounds} turns\n")
    print("| what | seconds | min to max | against |\n|---|---|---|---|")
    for name, value in middle.items():
        first = middle["pass, adapter beside the weights" if name.startswith("pass") else "decode, as loaded"]
        spread = f"{min(seconds[name]):.3f} to {max(seconds[name]):.3f}"
        print(f"| {name} | {value:.3f} | {spread} | {value / first:.2f} |")


if __name__ == "__main__":
    main()
