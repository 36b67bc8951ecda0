"""Prompts of the demo world in GenEval's six tags and words for OCR, split so that whole combinations are held out.

A combination (a colour–shape pair, a count of a shape, an unordered pair of shapes, a relation, a word, …) belongs to
one split only, whatever template or order it is put in; so no test prompt's combination was ever trained on. Two shapes
without colours are one: the same two may stand, coloured, in training prompts (`color_attr`, `half_colored_pairs`).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import random
from collections.abc import Mapping

from common.geneval_lines import TAGS
from trainer.demo.scenes.words import WORDS
from trainer.demo.scenes.world import COLORS, INVERSE, NUMBERS, PLURALS, RELATIONS, SHAPES
from trainer.prompts import Prompt

WORD = "word"
SPLITS = ("train", "validation", "test")

FRAMES = ("{}", "a photo of {}", "a drawing of {}", "a picture of {}", "an image of {}", "just {}")


def _order(key: object) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()


def _hold_out(keys: list, *, validation: int, test: int) -> dict:
    """Assign each key to a split: a fixed, arbitrary order decides which `test` and `validation` keys are held out."""
    ranked = sorted(keys, key=_order)
    return {k: "test" if i < test else "validation" if i < test + validation else "train" for i, k in enumerate(ranked)}


def _article(noun_phrase: str) -> str:
    return ("an " if noun_phrase[0] in "aeiou" else "a ") + noun_phrase


def _row(prompt: str, tag: str, split: str, include: list[dict], exclude: list[dict] | None = None) -> Prompt:
    metadata = {"tag": tag, "prompt": prompt, "include": include}
    if exclude:
        metadata["exclude"] = exclude
    return Prompt(prompt, tag, split, metadata)


def _single_object() -> list[Prompt]:
    split = _hold_out(list(itertools.product(SHAPES, FRAMES)), validation=5, test=8)
    return [
        _row(frame.format(_article(s)), "single_object", split[s, frame], [{"class": s, "count": 1}])
        for s, frame in split
    ]


def _two_object() -> list[Prompt]:
    split = _hold_out([tuple(sorted(p)) for p in itertools.combinations(SHAPES, 2)], validation=2, test=4)
    return [
        _row(
            frame.format(f"{_article(a)} and {_article(b)}"),
            "two_object",
            part,
            [{"class": a, "count": 1}, {"class": b, "count": 1}],
        )
        for pair, part in split.items()
        for a, b in (pair, pair[::-1])
        for frame in FRAMES[:3]
    ]


def _counting() -> list[Prompt]:
    plain = _hold_out(list(itertools.product(NUMBERS, SHAPES)), validation=2, test=4)
    colored = _hold_out(list(itertools.product(NUMBERS, COLORS, SHAPES)), validation=12, test=24)
    rows = []
    for (n, s), part in plain.items():
        exclude = [{"class": s, "count": n + 1}]
        for frame in FRAMES[:3]:
            text = frame.format(f"{NUMBERS[n]} {PLURALS[s]}")
            rows.append(_row(text, "counting", part, [{"class": s, "count": n}], exclude))
    for (n, c, s), part in colored.items():
        include = [{"class": s, "count": n, "color": c}]
        text = f"{NUMBERS[n]} {c} {PLURALS[s]}"
        rows.append(_row(text, "counting", part, include, [{"class": s, "count": n + 1}]))
    return rows


@functools.cache
def _color_pairs() -> dict[tuple[str, str], str]:
    return _hold_out(list(itertools.product(COLORS, SHAPES)), validation=4, test=8)


def _colors() -> list[Prompt]:
    return [
        _row(frame.format(_article(f"{c} {s}")), "colors", part, [{"class": s, "count": 1, "color": c}])
        for (c, s), part in _color_pairs().items()
        for frame in FRAMES[:3]
    ]


def _position() -> list[Prompt]:
    # "a heart left of a square" and "a square right of a heart" are one combination.
    keys = [(a, r, b) for a, b in itertools.permutations(SHAPES, 2) for r in ("left of", "above")]
    split = _hold_out(keys, validation=6, test=12)
    rows = []
    for (a, r, b), part in split.items():
        for first, relation, second in ((a, r, b), (b, INVERSE[r], a)):
            include = [
                {"class": second, "count": 1},
                {"class": first, "count": 1, "position": [relation, 0]},
            ]
            rows.append(_row(f"{_article(first)} {relation} {_article(second)}", "position", part, include))
    assert {r for _, r, _ in keys} | {INVERSE[r] for _, r, _ in keys} == set(RELATIONS)
    return rows


def _color_attr() -> list[Prompt]:
    """Two coloured shapes. A colour–shape pair held out of the `colors` tag is held out here too, so half of the test
    prompts contain a pair that no training prompt names and half are new combinations of known pairs."""
    pairs = _color_pairs()
    rows: dict[str, list[Prompt]] = {name: [] for name in ("train", "validation", "known", "unseen")}
    for p, q in itertools.combinations(sorted(pairs), 2):
        if p[0] == q[0] or p[1] == q[1]:
            continue
        parts = {pairs[p], pairs[q]}
        if parts == {"train"}:
            share = int(_order((p, q))[:8], 16) / 2**32
            name = "known" if share < 0.08 else "validation" if share < 0.12 else "train"
        elif "test" in parts and "validation" not in parts:
            name = "unseen"
        else:
            continue
        for (c1, s1), (c2, s2) in ((p, q), (q, p)):
            include = [{"class": s1, "count": 1, "color": c1}, {"class": s2, "count": 1, "color": c2}]
            part = "test" if name in ("known", "unseen") else name
            text = f"{_article(f'{c1} {s1}')} and {_article(f'{c2} {s2}')}"
            rows[name].append(_row(text, "color_attr", part, include))
    test = [sorted(rows[name], key=lambda r: _order(r.prompt))[:24] for name in ("known", "unseen")]
    return rows["train"] + rows["validation"] + test[0] + test[1]


def word_prompt(text: str, split: str = "train") -> Prompt:
    """`the word "CAT"` for any short text in capital letters."""
    prompt = f'the word "{text}"'
    return Prompt(prompt, WORD, split, {"tag": WORD, "prompt": prompt, "text": text})


def _words() -> list[Prompt]:
    split = _hold_out(list(WORDS), validation=30, test=60)
    return [word_prompt(word, part) for word, part in split.items()]


@functools.cache
def all_prompts() -> tuple[Prompt, ...]:
    """Every prompt of the world once, in a fixed order."""
    makers = (_single_object, _two_object, _counting, _colors, _position, _color_attr, _words)
    return tuple(row for make in makers for row in make())


def prompts(split: str, *, tags: tuple[str, ...] | None = None) -> list[Prompt]:
    """The prompts of one split, optionally of some tags only. Raises ValueError on an unknown split."""
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is not one of {', '.join(SPLITS)}")
    return [p for p in all_prompts() if p.split == split and (tags is None or p.tag in tags)]


def evaluation_prompts(
    split: str, per_tag: int, *, tags: tuple[str, ...] = (*TAGS, WORD), seed: int = 0
) -> list[Prompt]:
    """`per_tag` prompts of each tag, cycling through a shuffled list when a tag has fewer."""
    rows = []
    for tag in tags:
        pool = prompts(split, tags=(tag,))
        random.Random(f"{seed}-{tag}").shuffle(pool)
        rows += [pool[i % len(pool)] for i in range(per_tag)]
    return rows


# How often each tag is drawn for the base model's training data: most often what it learns most slowly. Near misses
# have a mix of their own: what is drawn rarely stays right.
TRAINING_MIX = {
    "single_object": 0.05,
    "two_object": 0.28,
    "counting": 0.27,
    "colors": 0.05,
    "position": 0.09,
    "color_attr": 0.14,
    WORD: 0.12,
}
NEAR_MISS_MIX = {
    "single_object": 0.11,
    "two_object": 0.15,
    "counting": 0.15,
    "colors": 0.13,
    "position": 0.17,
    "color_attr": 0.20,
    WORD: 0.09,
}
RANDOM_WORD_SHARE = 0.6
HALF_COLORED_SHARE = 0.85  # of the two_object captions


@functools.cache
def half_colored_pairs() -> tuple[Prompt, ...]:
    """Two shapes, one of them coloured ("a red star and a cross"): captions for the base model's training alone, which no
    round and no evaluation asks for. Of nine pairs of shapes a base learns nine pairs, not that "and" names two things. Any
    two shapes occur, as in `color_attr`, and only pairs of colour and shape that are not held out."""
    rows = []
    trained = [pair for pair, part in _color_pairs().items() if part == "train"]
    for (color, colored), plain in itertools.product(trained, SHAPES):
        if plain == colored:
            continue
        terms = [{"class": colored, "count": 1, "color": color}, {"class": plain, "count": 1}]
        names = [_article(f"{color} {colored}"), _article(plain)]
        for order in (1, -1):
            rows.append(_row(" and ".join(names[::order]), "two_object", "train", terms[::order]))
    return tuple(sorted(rows, key=lambda row: row.prompt))


@functools.cache
def _pools() -> dict[str, tuple[list[Prompt], frozenset[str]]]:
    held_out = frozenset(p.metadata["text"] for p in all_prompts() if p.tag == WORD and p.split != "train")
    return {tag: (prompts("train", tags=(tag,)), held_out) for tag in TRAINING_MIX}


def sample_training_prompt(rng: random.Random, mix: Mapping[str, float] = TRAINING_MIX) -> Prompt:
    """A training prompt for the base model, its tag by the shares of `mix`. Most words are random letters, never a held-out
    word, so that the model learns to spell rather than to recall."""
    tag = rng.choices(tuple(mix), tuple(mix.values()))[0]
    pool, held_out = _pools()[tag]
    if tag == WORD and rng.random() < RANDOM_WORD_SHARE:
        while True:
            text = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.choice((3, 4))))
            if text not in held_out:
                return word_prompt(text)
    if tag == "two_object" and rng.random() < HALF_COLORED_SHARE:
        return rng.choice(half_colored_pairs())
    return rng.choice(pool)
