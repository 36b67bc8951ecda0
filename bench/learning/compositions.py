"""How far the demo's models fall as a prompt asks for more at once: three to ten atoms, answered exactly.

    python -m bench.learning.compositions --prompts 16

A set in the manner of GenEval 2, of drawn scenes: the scene detector finds the objects, and each atom (an object, its
number, its colour, its place) is true or not. One column has the share of true atoms, the other that of images whose atoms
are all true. Prompts longer than the demo's text encoders read are cut, and told apart.
"""

from __future__ import annotations

import argparse
import random

import torch

from bench.harness import Run, add_work, keep, markdown, told
from trainer.cli import AFTER, MODEL, STUDENT
from trainer.demo.model import MAX_TOKENS
from trainer.demo.scenes.compositions import FEWEST, MOST, composition
from trainer.evaluate import sample_images
from trainer.oracles.atoms import atoms_of, holds
from trainer.oracles.geneval import by_class
from trainer.oracles.scenes import detect
from trainer.prompts import Prompt
from trainer.sampler import Sampler

MODELS = {"base, 40 guided steps": None, "student": STUDENT, "after the demo's round": AFTER}


def answers(row: Prompt, image) -> list[bool]:
    """Whether each of the prompt's atoms is true of the image."""
    include, found = row.metadata["include"], by_class(detect(image), threshold=0.0)
    return [holds(atom, include, found) for atom in atoms_of(row.prompt, row.metadata)]


def measured(name: str, rows: list[Prompt]) -> dict:
    """Of one model: the share of true atoms, and of images whose atoms are all true."""
    sampler = Sampler(MODEL)
    sampler.use_version(MODELS[name])
    how = {"steps": 40, "guidance": 4.5} if MODELS[name] is None else {"steps": 4}
    with torch.no_grad():
        images = sample_images(sampler.backend, [row.prompt for row in rows], batch=32, bf16=True, **how)
    found = [answers(row, image) for row, image in zip(rows, images, strict=True)]
    atoms = [answer for own in found for answer in own]
    return {"atoms": sum(atoms) / len(atoms), "all": sum(map(all, found)) / len(found), "images": len(images)}


def main(arguments: list[str] | None = None) -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=16, help="for each number of atoms, one image each")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--atoms", type=int, nargs="+", default=list(range(FEWEST, MOST + 1)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    add_work(parser, "compositions")
    a = parser.parse_args(arguments)
    torch.set_num_threads(a.threads)
    lines = []
    for atoms in a.atoms:
        rng = random.Random(f"{a.seed}-{atoms}")
        rows = [composition(atoms, rng) for _ in range(a.prompts)]
        cut = sum(len(row.prompt.split()) > MAX_TOKENS - 2 for row in rows)
        for name in a.models:
            found = {"count": atoms, "cut": cut, **measured(name, rows)}
            lines.append(keep(a.work, Run.made_here(name, a.seed, told(a), found)))
    print(sections(lines)["atoms"])


def sections(lines: list[dict]) -> dict[str, str]:
    """The page's table from the runs: a row a number of atoms."""
    names = list(dict.fromkeys(line["row"] for line in lines))
    table = []
    for count in sorted({line["count"] for line in lines}):
        of = {line["row"]: line for line in lines if line["count"] == count}
        some = next(iter(of.values()))
        cells = [f"{of[name][what]:.2f}" for name in names for what in ("atoms", "all")]
        table.append([f"{count}", f"{some['cut']} of {some['images']}", *cells])
    columns = ["atoms", "prompts cut", *(f"{name}: {what}" for name in names for what in ("atoms true", "all true"))]
    return {"atoms": markdown(columns, table)}


if __name__ == "__main__":
    main()
