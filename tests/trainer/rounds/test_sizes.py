"""Rounds of several sizes: an update's images have one, labels of all are learned from, and pictures show each."""

import json

import pytest
from PIL import Image

from common.sizes import parse_size
from tests.trainer.rounds_helpers import LINES, same, stop_after, weights
from trainer.methods.tdm_r1 import TDMR1
from trainer.rounds import RoundCancelled, prepare, run_round
from trainer.rounds.sources import Prompts
from trainer.sampler import Sampler, save_trajectory

SIZES = ["128x128", "128x64"]


@pytest.fixture
def groups_file(model_dir, parent, tmp_path):
    """Twelve labelled groups, a third of them wide."""
    sampler, rows = Sampler(model_dir), []
    sampler.use_version(parent)
    for i in range(12):
        line, file = LINES[i % 4], tmp_path / f"{i}.safetensors"
        size = parse_size(SIZES[i % 3 == 0])
        group = sampler.sample_group(line["prompt"], range(10 * i, 10 * i + 4), size=size)
        assert [image.size for image in group.images] == [size] * 4
        save_trajectory(file, group, prompt=line["prompt"], version="1")
        row = {
            "group": str(i),
            "prompt": line["prompt"],
            "metadata": line,
            "version": "1",
            "rewards": [1.0, 0.0, None, 1.0],
        }
        rows.append(row | {"trajectory_file": str(file)})
    path = tmp_path / "groups.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.mark.parametrize("stored", [True, False], ids=["labels", "oracle"])
def test_an_update_has_one_size_and_a_resumed_round_repeats_it(make_spec, reddish, groups_file, monkeypatch, stored):
    seen, learn, follow = [], TDMR1.learn, TDMR1.follow

    def watched(kind, run):
        def ran(method, given, generator):
            size = method.backend.size
            seen.append((kind, size))
            assert method.backend.size_of(given.trajectory) == size
            return run(method, given, generator)

        return ran

    monkeypatch.setattr(TDMR1, "learn", watched("learn", learn))
    monkeypatch.setattr(TDMR1, "follow", watched("follow", follow))
    source = {"reward_oracle": None, "groups_file": str(groups_file)} if stored else {}
    source |= {"sizes": SIZES, "settings": {"updates": 6, "surrogate_updates": 2}}
    straight = run_round(make_spec("straight", **source))
    assert {size for kind, size in seen if kind == "follow"} == {(128, 128), (128, 64)}
    assert not stored or {size for kind, size in seen if kind == "learn"} == {(128, 128), (128, 64)}
    with pytest.raises(RoundCancelled):
        run_round(make_spec("broken", **source), should_stop=stop_after(3))
    assert same(weights(straight), weights(run_round(make_spec("broken", **source))))


def test_pictures_have_places_for_the_largest(make_spec, reddish):
    spec = make_spec(sizes=SIZES, settings={"updates": 1})
    result = run_round(spec)
    assert Image.open(result.grid_after).size == (4 * 130 - 2, 128)


def test_a_prompt_may_name_its_size(make_spec, reddish):
    lines = [line | {"size": size} for line, size in zip(LINES, [*SIZES, "64x64", "64x64"], strict=True)]
    prompts = Prompts([*lines, {"prompt": "any"}], 0, [(64, 64)])
    drawn = {prompts.size(step): prompts.draw(step, 40) for step in range(40)}
    assert {size: {line["prompt"] for line in mine} for size, mine in drawn.items()} == {
        (128, 128): {"a red star"},
        (128, 64): {"a blue heart"},
        (64, 64): {"two squares", "a green cross", "any"},
    }
    assert Prompts(LINES, 0).size(3) is None
    stages = prepare(make_spec(train_prompts=lines[2:], validation=lines))
    assert [image.size for image in stages.judge.grid()] == [parse_size(line["size"]) for line in stages.judge._lines()]
    assert stages.source.scored(0).rollouts().trajectory.shape[-2:] == (8, 8)


def test_what_cannot_be_made_is_refused(make_spec, reddish, groups_file):
    with pytest.raises(ValueError, match=r"size: 136x128 is not of multiples of 16 pixels"):
        prepare(make_spec(sizes=["136x128"]))
    with pytest.raises(ValueError, match=r"size: 'wide' is not written as WIDTHxHEIGHT"):
        make_spec(sizes=["wide"])
    with pytest.raises(ValueError, match=r"size: 'wide' is not written as WIDTHxHEIGHT"):
        make_spec(train_prompts=[{"prompt": "a star", "size": "wide"}])
    with pytest.raises(ValueError, match=r"surrogate: a head is trained at one size, not at 128x64, 128x128"):
        prepare(make_spec(reward_oracle=None, groups_file=str(groups_file), settings={"surrogate": "head"}))


def test_another_size_than_the_models_own_alone(make_spec, reddish):
    settings = {"surrogate": "head", "head_groups": 8, "updates": 1, "validation_images": 0}
    stages = prepare(make_spec(sizes=["128x64"], settings=settings))
    assert stages.method.replay.latents.shape[-2:] == (8, 16)
    assert {"head_groups", "reward"} <= set(stages.step(0))


def test_a_size_beyond_what_the_model_knows(make_spec, reddish):
    with pytest.raises(ValueError, match="size: 192x64 is beyond the 128 pixels a side that this model knows"):
        prepare(make_spec(sizes=["192x64"]))
