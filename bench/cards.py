"""Which options make a round of each model fit onto which GPU, and what it then needs: the table of docs/memory.md.

    python -m bench.cards                                       # an hour of a core; all of it is arithmetic, no GPU is used
    python -m bench.cards --models "SD3.5 Medium" --sizes 512   # one row

A round as in docs/run-a-real-model.md: the paper's settings for GenEval with 8 prompts of 8 images and 16 images for the
student an update, rank 32; without guidance where it is distilled into the model. Each cell is the first rung of the ladder
(`trainer.plan.LADDER`) that fits.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from bench.harness import Run, add_work, keep, told
from bench.shapes import MODELS, write
from common.settings import MemorySettings, TDMR1Settings
from trainer.plan import GB, advise, options_text, parse_gpu

SIZES, CARDS = (512, 1024), ("12GB", "16GB", "24GB", "80GB")
ROUND = {"prompts_per_update": 8, "group_size": 8, "student_batch": 16, "updates": 200}


def settings_of(model: str) -> TDMR1Settings:
    """Of the round that is planned."""
    unguided = {"guidance": 1.0, "rl_cfg": 1.0} if MODELS[model]["distilled"] else {}
    return TDMR1Settings.from_json(TDMR1Settings.paper().to_json() | ROUND | unguided)


def cell(folder: Path, model: str, card: str, costs: dict) -> tuple[str, dict]:
    """What stands in the table, and the figures behind it."""
    gigabytes, tflops, _ = parse_gpu(card)
    _, plan = advise(folder, settings_of(model), MemorySettings(half=True), gigabytes * GB, costs=costs)
    if plan is None:
        return "–", {"fits": False}
    minutes = plan.seconds(tflops)[0] / 60
    waiting = plan.streamed[0] if plan.memory.streamed else 0
    found = {"fits": True, "options": options_text(plan.memory), "gb": plan.total / GB, "minutes": minutes}
    found |= {"gb_waiting": waiting / GB}
    return f"{short(plan.memory)}: {plan.total / GB:.1f} GB, {minutes:.1f} min", found


def short(memory: MemorySettings) -> str:
    """The options in few words."""
    words = ["bf16" if memory.weights == "none" else memory.weights]
    words += ["streamed"] if memory.streamed else []
    words += ["checkpointing"] if memory.checkpointing and not memory.streamed else []
    words += [f"micro-batch {memory.micro_batch}"] if memory.micro_batch else []
    words += ["tiles"] if memory.vae_tiling else []
    words += ["encoders kept"] if memory.text_encoders == "keep" else []
    return ", ".join(words)


def main() -> None:
    """Print the table as Markdown, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES))
    add_work(parser, "cards")
    a = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"| model | pixels | {' | '.join(card.replace('GB', ' GB') for card in CARDS)} |\n|{'---|' * (2 + len(CARDS))}"
    )
    for model in a.models:
        for size in a.sizes:
            costs: dict = {}
            cells = []
            with tempfile.TemporaryDirectory() as folder:
                written = write(model, Path(folder) / "model", size)
                for card in CARDS:
                    text, found = cell(written, model, card, costs)
                    cells.append(text)
                    keep(a.work, Run.made_here(f"{model}, {size}, {card}", None, told(a), found))
            print(f"| {model} | {size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
