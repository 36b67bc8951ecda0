"""The demo world's prompts: every tag in every split, and nothing held out that training has seen."""

import itertools
import random

import pytest

from trainer.demo.scenes.prompts import (
    SPLITS,
    TAGS,
    WORD,
    all_prompts,
    evaluation_prompts,
    half_colored_pairs,
    prompts,
    sample_training_prompt,
)
from trainer.demo.scenes.world import SHAPES


def combination(metadata):
    """What a prompt asks for, whatever its template and order."""
    if "text" in metadata:
        return metadata["text"]
    terms = metadata["include"]
    names = tuple((t.get("color"), t["class"], t["count"]) for t in terms)
    relation = next((t["position"][0] for t in terms if "position" in t), None)
    if relation in ("right of", "below"):
        return tuple(reversed(names)), {"right of": "left of", "below": "above"}[relation]
    return (names, relation) if relation else tuple(sorted(names, key=str))


def test_every_tag_is_in_every_split():
    for split in SPLITS:
        assert {p.tag for p in prompts(split)} == {*TAGS, WORD}


def test_prompts_are_unique():
    texts = [p.prompt for p in all_prompts()]
    assert len(texts) == len(set(texts))


@pytest.mark.parametrize("tag", [t for t in (*TAGS, WORD) if t != "single_object"])
def test_no_combination_is_in_two_splits(tag):
    seen = {split: {combination(p.metadata) for p in prompts(split, tags=(tag,))} for split in SPLITS}
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"]


def test_single_objects_are_held_out_by_their_template():
    # There are only six shapes, so here the held-out combination is the shape with its template.
    assert not {p.prompt for p in prompts("train")} & {p.prompt for p in prompts("test")}


def held_out_colors():
    """The pairs of colour and shape of no training prompt, (colour, shape)."""
    rows = prompts("test", tags=("colors",)) + prompts("validation", tags=("colors",))
    return {(t["color"], t["class"]) for row in rows for t in row.metadata["include"]}


def test_no_training_prompt_names_a_held_out_color_and_shape():
    for p in prompts("train", tags=("colors", "color_attr")):
        assert not held_out_colors() & {(t["color"], t["class"]) for t in p.metadata["include"]}


def test_training_words_never_spell_a_held_out_word():
    held_out = {p.metadata["text"] for p in prompts("test", tags=(WORD,)) + prompts("validation", tags=(WORD,))}
    rng = random.Random(0)
    drawn = {p.metadata["text"] for p in (sample_training_prompt(rng) for _ in range(20_000)) if p.tag == WORD}
    assert len(drawn) > 1000
    assert not held_out & drawn


def test_training_prompts_come_from_the_training_split():
    rng = random.Random(1)
    train = {p.prompt for p in prompts("train")} | {p.prompt for p in half_colored_pairs()}
    assert all(p.prompt in train for p in (sample_training_prompt(rng) for _ in range(2000)) if p.tag != WORD)


def test_half_colored_pairs_are_of_all_shapes_and_of_no_held_out_prompt():
    rows = half_colored_pairs()
    assert {tuple(sorted(t["class"] for t in row.metadata["include"])) for row in rows} == {
        tuple(sorted(pair)) for pair in itertools.combinations(SHAPES, 2)
    }
    assert not {row.prompt for row in rows} & {p.prompt for p in all_prompts()}
    named = {(t.get("color"), t["class"]) for row in rows for t in row.metadata["include"]}
    assert not held_out_colors() & named
    assert all(sum("color" in t for t in row.metadata["include"]) == 1 for row in rows)


def test_evaluation_prompts_are_even_and_repeatable():
    rows = evaluation_prompts("test", 20)
    assert [r.tag for r in rows] == [tag for tag in (*TAGS, WORD) for _ in range(20)]
    assert rows == evaluation_prompts("test", 20)


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="split: 'dev' is not one of"):
        prompts("dev")
