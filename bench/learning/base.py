"""Whether labels can matter on a base: how clean it draws, how often it is right, and what it knows of right and wrong.

    python -m bench.learning.base --model models/demo --student models/demo-student --threads 2

A base is fit for learning from labels if it draws cleanly, is often wrong, and finds its wrong images about as likely as
its right ones, while an explicit head on its features can tell them apart. All is measured on validation prompts:

- `ceiling`: drawn scenes that only went through the autoencoder and back, which no base of it can pass
- `guided`, `unguided`: the base in 40 steps, with guidance 4 and without; six-tag benchmark, strict score, words, and the
  share of images with something ill-formed in them
- `student`: the same of the 4-step student
- `levels`: right scenes to which noise was added up to a level, and which the base denoised from there without guidance:
  the share with something ill-formed, which says at what levels the base goes wrong
- `ranked`: of the student's groups of eight, the share of pairs (right before wrong) that the base's own denoising error
  orders, and that an explicit head orders after it learned from other groups of training prompts

Finished parts are lines of WORK/runs.jsonl and are not made again.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from bench.harness import Runs, add_work, markdown, runs_of, told
from bench.learning.failures import things
from trainer.advantages import pairs_right
from trainer.backends import Backend, load_backend
from trainer.cli import MODEL, STUDENT
from trainer.controls import own_errors
from trainer.demo.latents import BATCH, encode
from trainer.demo.scenes.draw import draw, sample_scene
from trainer.demo.scenes.prompts import TAGS, WORD, evaluation_prompts, prompts
from trainer.evaluate import FIRST_SEEDS, evaluate, tag_scores
from trainer.oracles import get_oracle
from trainer.oracles.scenes import detect
from trainer.prompts import Prompt
from trainer.reward_head import RewardHead, fit, opinions
from trainer.roles import STUDENT as STUDENT_ROLE
from trainer.roles import SURROGATE, Roles
from trainer.sampler import Sampler, initial_noise, related_noise, sample_latents

GROUP = 8
HEAD_PASSES = 4
SCORES = ("geneval", "strict", "word", "ill_formed")
CEILING, LEVELS, RANKED = "ceiling", "levels", "ranked"
STARTS = (0.5, 0.7, 0.85, 0.95)  # levels that `levels` starts from
WAYS = {"guided": {"steps": 40, "guidance": 4.0}, "unguided": {"steps": 40}, "student": {"steps": 4}}
PARTS = (CEILING, *WAYS, LEVELS, RANKED)


def ill_formed(images: Sequence[Image.Image]) -> float:
    """The share of images with something in them that is no shape of the demo's world."""
    return sum(things(image) > len(detect(image)) for image in images) / len(images)


def right_scenes(backend: Backend, rows: Sequence[Prompt], seed: int) -> torch.Tensor:
    """Latents (B, C, h, w) of a right scene for each prompt."""
    rng = random.Random(seed)
    scenes = [draw(sample_scene(row.metadata, rng)) for row in rows]
    return torch.cat([encode(backend.pipeline.vae, scenes[i : i + BATCH]) for i in range(0, len(scenes), BATCH)])


@torch.no_grad()
def levels(model: Path, per_tag: int, seed: int) -> dict[str, float]:
    """By level of `STARTS`: the share of ill-formed images among right scenes that were noised up to it and denoised in the
    base's own steps below it."""
    backend, rows = load_backend(model), evaluation_prompts("validation", per_tag, tags=TAGS)
    x0, conditioning = right_scenes(backend, rows, seed), backend.encode([row.prompt for row in rows])
    noise = initial_noise([FIRST_SEEDS["validation"] + i for i in range(len(rows))], backend.latent_shape)
    own, found = backend.grid(WAYS["unguided"]["steps"]), {}
    for level in STARTS:
        grid = torch.cat([torch.tensor([level]), own[own < level]])
        images = []
        for i in range(0, len(rows), GROUP * BATCH):
            some = slice(i, i + GROUP * BATCH)
            start = torch.lerp(x0[some], noise[some], level)
            images += backend.decode(
                sample_latents(backend, conditioning.take(some), start, grid, bf16=True)[:, -1], bf16=True
            )
        found[f"{level:g}"] = ill_formed(images)
    return found


@torch.no_grad()
def ceiling(model: Path, per_tag: int, seed: int) -> dict[str, float]:
    """Scores, and the ill-formed share, of right scenes of validation prompts that were encoded and decoded again."""
    backend = load_backend(model)
    rows = evaluation_prompts("validation", per_tag, tags=(*TAGS, WORD))
    images = [
        image for part in right_scenes(backend, rows, seed).split(BATCH) for image in backend.decode(part, bf16=True)
    ]
    verdicts = get_oracle("demo").score(images, [row.prompt for row in rows], [row.metadata for row in rows])
    shapes = [image for image, row in zip(images, rows, strict=True) if row.tag != WORD]
    return {**tag_scores(rows, verdicts), "ill_formed": ill_formed(shapes)}


def drawn(model: Path, lora: Path | None, per_tag: int, how: dict) -> dict[str, float]:
    """Scores of validation prompts, `per_tag` a tag, and the share of images with something ill-formed in them."""
    sampler = Sampler(model)
    sampler.use_version(lora)
    rows = evaluation_prompts("validation", per_tag, tags=(*TAGS, WORD))
    result = evaluate(sampler.backend, rows, get_oracle("demo"), bf16=True, **how)
    scenes = [image for image, row in zip(result.images, rows, strict=True) if row.tag != WORD]
    return {**result.scores, "ill_formed": ill_formed(scenes)}


@torch.no_grad()
def student_groups(
    model: Path, lora: Path, split: str, count: int, seed: int
) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """(final latents (P, G, C, h, w), P prompts, likes (P, G)) of groups in which some image is right and some wrong, out
    of `count` that the student makes of a split's prompts, tags in turn, with independent noise. Raises SystemExit when
    there is no such group."""
    sampler, oracle = Sampler(model), get_oracle("scenes")
    sampler.use_version(lora)
    backend = sampler.backend
    pools = [prompts(split, tags=(tag,)) for tag in TAGS]
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    kept, names, likes = [], [], []
    for number in range(count):
        row = rng.choice(pools[number % len(pools)])
        noise = related_noise(1, GROUP, backend.latent_shape, 1.0, generator)
        conditioning = backend.encode([row.prompt]).repeat(GROUP)
        final = sample_latents(backend, conditioning, noise, backend.grid(4), bf16=True)[:, -1]
        verdicts = oracle.score(backend.decode(final, bf16=True), [row.prompt] * GROUP, [row.metadata] * GROUP)
        liked = torch.tensor([float(v.liked) for v in verdicts])
        if 0 < liked.sum() < GROUP:
            kept.append(final.half().cpu())
            names.append(row.prompt)
            likes.append(liked)
    if not kept:
        raise SystemExit(f"no group of {count} has both right and wrong images; nothing can be ranked")
    return torch.stack(kept), names, torch.stack(likes)


def ranked(model: Path, lora: Path, taught: int, tested: int, seed: int) -> dict[str, float]:
    """What share of held-out pairs the base's own error and a head put in order, and of how many groups."""
    held = student_groups(model, lora, "validation", tested, seed + 1)
    known = torch.ones_like(held[2], dtype=torch.bool)
    backend = load_backend(model)
    found = {"own_error": pairs_right(-own_errors(backend, held[0], held[1]), held[2], known)}
    images, names, likes = student_groups(model, lora, "train", taught, seed)
    roles = Roles(backend.transformer, backend.lora_targets, rank=32, alpha=64, roles=(STUDENT_ROLE, SURROGATE))
    torch.manual_seed(seed)
    head = RewardHead(backend, roles, SURROGATE)
    taught_known = torch.ones_like(likes, dtype=torch.bool)
    fit(head, images, names, likes, taught_known, passes=HEAD_PASSES, seed=seed)
    found["head"] = pairs_right(opinions(head, held[0], held[1]), held[2], known)
    return {**found, "groups_taught": len(images), "groups_held_out": len(held[0])}


def sections(lines: list[dict]) -> dict[str, str]:
    """What the page shows by name: scores, means over the seeds, as a table, and what is ranked as a sentence."""
    mine = {line["row"]: line for line in lines}
    rows = []
    for way in (CEILING, *WAYS):
        if made := runs_of(lines, way):
            means = [f"{statistics.mean(line[name] for line in made):.3f}" for name in SCORES]
            rows.append([way, str(len(made)), *means])
    found = {"drawn": markdown(["", "seeds", "benchmark", "strict", "words", "ill-formed"], rows)}
    if line := mine.get(LEVELS):
        shares = ", ".join(f"{line[f'{level:g}']:.3f} from {level:g}" for level in STARTS)
        found[LEVELS] = f"Ill-formed, of right scenes that were denoised again: {shares}."
    if line := mine.get(RANKED):
        found[RANKED] = (
            f"Of pairs in {line['groups_held_out']} held-out groups the base's own error ranks {line['own_error']:.3f}, "
            f"a head that learned from {line['groups_taught']} groups {line['head']:.3f}."
        )
    return found


def main() -> None:
    """Measure what is missing and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--student", type=Path, default=STUDENT)
    parser.add_argument("--per-tag", type=int, default=32, help="images a tag (default: %(default)s)")
    parser.add_argument("--taught", type=int, default=1200, help="groups that the head may learn from")
    parser.add_argument("--tested", type=int, default=192, help="groups that are ranked")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    add_work(parser, "base")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    made_with = told(a, "parts", "seed", "threads") | {"model": a.model.name, "student": a.student.name}
    runs = Runs(a.work, lambda row: made_with)
    for way in a.parts:
        if way == CEILING:
            runs.once(way, a.seed, lambda: ceiling(a.model, a.per_tag, a.seed))
        elif way == LEVELS:
            runs.once(way, a.seed, lambda: levels(a.model, a.per_tag, a.seed))
        elif way == RANKED:
            runs.once(way, a.seed, lambda: ranked(a.model, a.student, a.taught, a.tested, a.seed))
        else:
            lora = a.student if way == "student" else None
            runs.once(way, a.seed, lambda v=lora, w=way: drawn(a.model, v, a.per_tag, WAYS[w]))
    print("\n\n".join(sections([line for line in runs.lines if line["seed"] == a.seed]).values()))


if __name__ == "__main__":
    main()
