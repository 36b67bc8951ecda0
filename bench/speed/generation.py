"""Groups of images from the trainer's sampler against the stock diffusers pipeline, called once an image.

    python -m bench.speed.generation --threads 1

Both have the same weights (the demo model and its student, loaded into the pipeline the stock way), prompts and noise, 4
steps and no guidance, and end in PIL images. They take turns in one process, so that the machine's drift hits them alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.utils import logging
from PIL import Image

from bench.harness import Run, add_work, keep, told
from trainer.cli import MODEL, STUDENT
from trainer.demo.scenes.prompts import TAGS, evaluation_prompts
from trainer.sampler import Sampler, initial_noise


def clocked(run: Callable[[], list[Image.Image]]) -> tuple[list[Image.Image], float, float]:
    """What `run` returns, its seconds by the clock and the CPU's own, which other programs beside it change less."""
    clock, cpu = time.perf_counter(), time.process_time()
    images = run()
    return images, time.perf_counter() - clock, time.process_time() - cpu


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=8, help="images of a prompt")
    parser.add_argument("--rounds", type=int, default=12, help="groups, each made by both")
    add_work(parser, "generation")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    logging.set_verbosity_error()  # the demo's third text encoder has one token, and stock says so at every call
    sampler = Sampler(MODEL)
    sampler.use_version(STUDENT)
    stock = StableDiffusion3Pipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
    stock.load_lora_weights(str(STUDENT))
    stock.set_progress_bar_config(disable=True)
    call = sampler.backend.stock_call(sampler.settings.steps)

    def one_by_one(prompt: str, seeds: range) -> list[Image.Image]:
        noise = initial_noise(seeds, sampler.backend.latent_shape)
        return [stock(prompt, latents=noise[i : i + 1], **call).images[0] for i in range(len(noise))]

    rows, apart = [], 0
    # One group more than is counted: the first warms up.
    for i, row in enumerate(prompts_in_turn(a.rounds + 1)):
        seeds = range(1000 * i, 1000 * i + a.size)
        ours, *spent = clocked(lambda p=row.prompt, s=seeds: sampler.sample_group(p, s).images)
        theirs, *stock_spent = clocked(lambda p=row.prompt, s=seeds: one_by_one(p, s))
        pairs = zip(ours, theirs, strict=True)
        apart = max(apart, *(int(np.abs(np.asarray(x, int) - np.asarray(y, int)).max()) for x, y in pairs))
        if i:
            rows.append((*spent, *stock_spent))
    names = ("clock", "cpu", "stock_clock", "stock_cpu")
    seconds = {name: [group[column] for group in rows] for column, name in enumerate(names)}
    keep(a.work, Run.made_here("groups", None, told(a), {"seconds": seconds, "largest_difference": apart}))
    print(f"{a.size} images a group, {len(rows)} groups, {a.threads} thread(s); ", end="")
    print(f"largest difference of a pixel: {apart} of 255\n")
    print("| by | sampler, images/s | stock, images/s | ratio, median (min to max) |\n|---|---|---|---|")
    for name, mine, other in (("clock", 0, 2), ("CPU time", 1, 3)):
        speeds = [statistics.median(a.size / r[column] for r in rows) for column in (mine, other)]
        ratios = [r[other] / r[mine] for r in rows]
        spread = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {speeds[0]:.2f} | {speeds[1]:.2f} | {spread} |")
    print("\nTarget: 3x.")


def prompts_in_turn(count: int) -> list:
    """Test prompts of every tag in turn."""
    rows = evaluation_prompts("test", -(-count // len(TAGS)), tags=TAGS)
    return sorted(rows, key=lambda row: rows.index(row) % -(-count // len(TAGS)))[:count]


if __name__ == "__main__":
    main()
