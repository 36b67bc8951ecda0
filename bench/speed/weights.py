"""What weights held as codes cost in accuracy: the error of a velocity and of 4-step images against bf16, by family.

    python -m bench.speed.weights --images 8

The models are the tests' tiny pipelines of random weights, and the demo model, which is trained. Errors are root mean
squares over that of the bf16 result's own values; `bf16` is the error of bf16 itself against fp32.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.harness import Run, add_work, keep, told
from common.settings import MemorySettings
from tests.trainer.backends.tiny import CASES
from trainer.backends import load_backend
from trainer.cli import MODEL
from trainer.sampler import initial_noise, sample_latents

KINDS = ("int8", "fp8", "nf4")
PROMPTS = ("a red star", "two blue hearts beside a dog", "a green circle above a square", "three yellow crosses")


@torch.no_grad()
def results(folder: Path, memory: MemorySettings, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(velocities, last latents of 4 steps) of as many images, from the same noise for every setting."""
    backend = load_backend(folder, memory=memory)
    noise = initial_noise(range(images), backend.latent_shape)
    conditioning = backend.encode([PROMPTS[i % len(PROMPTS)] for i in range(images)])
    t = torch.linspace(0.1, backend.grid(4)[0].item(), images)
    last = sample_latents(backend, conditioning, noise, backend.grid(4))[:, -1]
    return backend.velocity(noise, t, conditioning), last


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Root mean square of the difference over that of `theirs`."""
    return ((ours - theirs).norm() / theirs.norm()).item()


def measure(folder: Path, images: int) -> Iterator[tuple[str, float, float]]:
    """(kind, error of the velocity, error of the image) of one model."""
    exact = results(folder, MemorySettings(), images)
    half = results(folder, MemorySettings(half=True), images)
    yield "bf16", *map(error, half, exact)
    for kind in KINDS:
        yield kind, *map(error, results(folder, MemorySettings(half=True, weights=kind), images), half)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    add_work(parser, "weights")
    a = parser.parse_args()
    print("| model | weights | velocity | image |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("demo", *CASES):
            torch.manual_seed(0)
            model = MODEL if name == "demo" else CASES[name].build(Path(folder) / name)
            for kind, velocity, image in measure(model, a.images):
                print(f"| {name} | {kind} | {velocity:.2%} | {image:.2%} |", flush=True)
                found = {"velocity": velocity, "image": image}
                keep(a.work, Run.made_here(f"{name}, {kind}", None, told(a), found))


if __name__ == "__main__":
    main()
