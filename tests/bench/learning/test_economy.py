"""The label bench's simulated people, what it makes of their labels, and its ways to need fewer."""

import argparse
import json

import pytest
import torch

import bench.learning.gains
import bench.learning.label_economy
from bench.harness import START, make_missing, svg
from bench.learning import economy
from bench.learning.economy import StopsInTime, labelled
from bench.learning.label_economy import CURVE, LOOKS, ORACLE, ROWS, collect, plot, settings_of, table, tastes, train
from bench.learning.people import (
    PEOPLE,
    TASTES,
    Person,
    RatedGroup,
    Seen,
    like_rates,
    seen_in,
    shares,
    votes_of,
    weighed,
)
from tests.bench.conftest import dots
from tests.trainer.rounds_helpers import LINES, SMALL
from trainer.backends import load_backend
from trainer.data import read_groups
from trainer.demo.scenes.draw import draw
from trainer.demo.scenes.world import Scene, SceneObject
from trainer.roles import SURROGATE
from trainer.sampler import Sampler

WHITE = (255, 255, 255)


def groups(count=200, size=8):
    truth = torch.rand(count, size, generator=torch.Generator().manual_seed(0)) < 0.6
    seen = (Seen(("green",), 0.2), Seen(("red",), 0.8)) * (size // 2)
    return [RatedGroup(i, "", {}, "", tuple(row), seen) for i, row in enumerate(truth.tolist())]


def wrong(rewards, rated):
    errors = [abs(r - t) for row, g in zip(rewards, rated, strict=True) for r, t in zip(row, g.liked, strict=True)]
    return sum(errors) / len(errors)


def test_people_err_as_often_as_they_are_said_to_and_the_same_way_again():
    rated = groups()
    votes = [votes_of([Person(0.1)], g, 0) for g in rated]
    assert wrong(shares(votes), rated) == pytest.approx(0.1, abs=0.03)
    assert votes == [votes_of([Person(0.1)], g, 0) for g in rated]
    assert votes != [votes_of([Person(0.1)], g, 1) for g in rated]
    assert votes[:50] == [votes_of([Person(0.1)], g, 0) for g in rated[:50]]


def test_a_biased_person_never_likes_what_they_hate():
    for g in groups(20):
        (labels,) = votes_of([Person(0.0, hated="green")], g, 0)
        assert not any(labels[0::2])
        assert labels[1::2] == list(g.liked[1::2])


def test_who_likes_large_shapes_likes_no_small_ones():
    for g in groups(20):
        (labels,) = votes_of([Person(0.0, large=True)], g, 0)
        assert not any(labels[0::2])
        assert labels[1::2] == list(g.liked[1::2])


def test_what_is_seen_is_what_was_drawn_and_decides_who_likes_it():
    line = {"tag": "two_object", "include": [{"class": "star", "count": 1}, {"class": "circle", "count": 1}]}
    small = Scene((SceneObject("star", "green", 30, 30, 15.5), SceneObject("circle", "red", 90, 90, 15.5)), WHITE)
    large = Scene((SceneObject("star", "blue", 30, 30, 22.5), SceneObject("circle", "red", 90, 90, 22.5)), WHITE)
    images = [draw(small), draw(large)]
    seen = [seen_in(image, line) for image in images]
    assert [s.colors for s in seen] == [("green", "red"), ("blue", "red")]
    assert [s.size for s in seen] == pytest.approx([0.06, 0.94], abs=0.1)
    found = like_rates(images * 2, [line] * 4, [True, True, False, False])
    assert found == {"no green": 0.25, "fits no green": 0.5, "large": 0.25, "fits large": 0.5}


def test_weighing_two_people_by_gold_is_nearer_the_truth_than_their_share():
    rated = groups()
    votes = [votes_of(PEOPLE["two"], g, 0) for g in rated]
    assert wrong(weighed(PEOPLE["two"], votes, 0), rated) < 0.7 * wrong(shares(votes), rated)


def test_the_budget_counts_clicks_of_everybody(tmp_path, monkeypatch):
    asked = []

    def rated(version, count, size, spread, seed, folder, first):
        asked.append((count, size))
        return groups(count, size)

    monkeypatch.setattr(economy, "rated_groups", rated)
    for name in ("1000", "two", "fours", "signal"):
        made = collect(ROWS[name], 0, tmp_path, 1000, tmp_path)
        assert len(made) * ROWS[name].size * len(PEOPLE[ROWS[name].people]) <= 1000
    assert asked == [(125, 8), (62, 8), (250, 4), (250, 8)]


def test_rated_groups_are_kept_and_a_longer_list_starts_with_the_shorter(tmp_path, model_dir, parent, monkeypatch):
    monkeypatch.setattr(economy, "MODEL", model_dir)
    made = economy.rated_groups(parent, 1, 4, 0.4, 0, tmp_path)
    monkeypatch.setattr(economy, "Sampler", None)  # nothing is sampled again
    assert economy.rated_groups(parent, 1, 4, 0.4, 0, tmp_path) == made
    monkeypatch.setattr(economy, "Sampler", Sampler)
    assert economy.rated_groups(parent, 2, 4, 0.4, 0, tmp_path)[:1] == made
    assert len(made[0].liked) == len(made[0].seen) == 4


def test_a_head_learns_what_the_base_sees(model_dir, groups_file):
    """Labels that are a function of a feature are learned; groups without labels get probabilities that follow it."""
    backend, read = load_backend(model_dir), read_groups(groups_file)
    x = economy.features_of(backend, read)
    assert x[0].shape[0] == 4
    middle = torch.cat(x)[:, 0].median()
    rewards = [(part[:, 0] > middle).float().tolist() for part in x]
    rated = [economy.replace(g, rewards=tuple(r)) for g, r in zip(read, rewards, strict=True)]
    both = economy.extended(backend, rated, read)
    assert both[: len(rated)] == rated
    told = torch.tensor([g.rewards for g in both[len(rated) :]])
    truth = torch.tensor(rewards)
    assert ((told >= 0) & (told <= 1)).all()
    assert told[truth == 1].mean() > told[truth == 0].mean() + 0.2


def test_features_are_the_frozen_base_s_whatever_was_trained(make_spec, groups_file):
    settings = SMALL | {"validation_images": 0, "alarm": False}
    spec = make_spec(reward_oracle=None, groups_file=str(groups_file), settings=settings)
    made = economy.judged_by_head(spec)
    x0 = torch.randn((4, *made.method.backend.latent_shape), generator=torch.Generator().manual_seed(0))
    names = [LINES[0]["prompt"]] * 4
    before = made.source.score(x0, names, [])
    metrics = made.step(0)
    assert 0 <= metrics["reward"] <= 1
    assert "surrogate" in metrics and "student" in metrics
    assert made.source.score(x0, names, []) == pytest.approx(before, abs=1e-5)


def test_the_surrogate_stops_when_groups_kept_back_are_ranked_no_better(make_spec, groups_file, monkeypatch):
    said = iter([0.5, 0.7, 0.6, 0.6, 0.6])
    monkeypatch.setattr(economy, "ranked_right", lambda *a: (next(said),))
    monkeypatch.setattr(StopsInTime, "EVERY", 1)
    settings = SMALL | {"updates": 8, "validation_images": 0, "alarm": False}
    spec = make_spec(reward_oracle=None, groups_file=str(groups_file), settings=settings)
    made = economy.stops_in_time(spec)
    generator, states = torch.Generator().manual_seed(0), []
    for _ in range(7):
        for batch in made.source.batches(generator):
            made.method.learn(batch, generator)
        states.append(made.method.roles.state_dict(SURROGATE))
    assert all(torch.equal(states[-1][k], states[1][k]) for k in states[1])  # the second look's was the best
    assert any(not torch.equal(states[1][k], states[0][k]) for k in states[1])


def test_a_row_of_two_rounds_goes_through(tmp_path, model_dir, parent, monkeypatch):
    for module in (economy, bench.learning.label_economy, bench.learning.gains):
        monkeypatch.setattr(module, "MODEL", model_dir)
    monkeypatch.setattr(bench.learning.label_economy, "STUDENT", parent)
    monkeypatch.setitem(PEOPLE, "coin", (Person(0.5),))
    row = economy.replace(ROWS["replay"], labels=64, people="coin")
    version, spent = train(row, "replay", 0, {**SMALL, "updates": 1}, tmp_path)
    assert spent["signal"] == 8  # four groups in the first round, those and four of the new version in the second
    assert (version / "pytorch_lora_weights.safetensors").exists()
    files = [json.loads(line) for line in (tmp_path / "replay-0/1/groups.jsonl").read_text().splitlines()]
    assert len({line["group"] for line in files}) == 8  # other prompts, noise and errors in the second round


def lines():
    base = {"strict": 0.5, "geneval": 0.6, "reward": 0.7} | dict.fromkeys(LOOKS, 0.3)
    found = [{"row": START, "seed": 0, "test": base, "validation": base}]
    for name, gain in ((ORACLE, 0.2), (str(CURVE[0]), 0.1), (str(CURVE[2]), 0.18)):
        for seed, more in ((0, -0.01), (1, 0.01)):
            scores = {k: v + gain + more for k, v in base.items()}
            spent = {"signal": 11, "minutes": 5.0}
            found.append({"row": name, "seed": seed, **spent, "test": scores, "validation": scores})
    return found


def test_what_a_row_sets_stays_whatever_all_rows_are_told():
    told = {"trunc_steps": 3, "beta_dpo": 20.0}
    made = settings_of(ROWS["first_step"], told)
    assert (made.trunc_steps, made.beta_dpo) == (1, 20.0)
    assert settings_of(ROWS["1000"], told).trunc_steps == 3


def test_a_file_of_other_settings_is_refused(tmp_path):
    parser = argparse.ArgumentParser()
    a = argparse.Namespace(threads=torch.get_num_threads(), work=tmp_path, table=False, seeds=[0], rows=["1000"])
    made = []

    def run(settings):
        return make_missing(parser, a, lambda row: {"settings": settings}, lambda row, seed: made.append(row) or {})

    assert len(run({"updates": 60})) == 2
    assert len(run({"updates": 60})) == 2 == len(made)  # nothing is made again
    with pytest.raises(SystemExit):
        run({"updates": 61})


def test_the_table_has_each_row_s_share_of_the_oracle_s_gain():
    text = table(lines())
    assert "| 1,000 labels | 2 | 11 | +0.180 ± 0.014 |" in text
    assert "| 90%, 90% |" in text
    assert "| 50%, 50% |" in text


def test_the_table_of_tastes_leaves_out_runs_that_are_older():
    assert tastes(lines()).count("\n") == 1
    found = lines()
    for line in found:
        line["test"] |= {c: line["test"]["strict"] for name in TASTES for c in (name, f"fits {name}")}
    assert "| before |  | 0.500 | 0.500 |" in tastes(found)
    assert "| 1,000 labels | 2 | +0.180 ± 0.014 |" in tastes(found)


def test_the_plot_has_a_dot_a_run_of_the_curve():
    found = lines()
    figure = plot(found)
    assert dots(figure) == 2 * 4
    assert b">three<" not in svg(figure)
    figure = plot([*found, {**found[-1], "row": "thrice"}])
    assert dots(figure) == 2 * 5
    assert b">three<" in svg(figure)


def test_labels_are_what_the_trainer_reads(tmp_path):
    file = tmp_path / "groups.jsonl"
    rated = [economy.replace(g, trajectory_file="x") for g in groups(2)]
    made = labelled(rated, [[1.0, *[0.0] * 7], [1.0] * 8])
    file.write_text("".join(json.dumps(vars(g)) + "\n" for g in made))
    assert [g.rewards[0] for g in read_groups(file)] == [1.0, 1.0]
