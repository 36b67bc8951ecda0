"""Rounds from labels and from an oracle: they learn, resume exactly, stop when told and refuse what cannot teach."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import ImageEnhance
from safetensors.torch import load_file

import trainer.rounds.judge
import trainer.watch.looks
from common.settings import DistillSettings, SettingsError, TDMR1Settings
from tests.trainer.rounds_helpers import same, stop_after, weights
from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.data import GroupStore
from trainer.evaluate import Evaluation, clearly_worse
from trainer.methods.base import FAKE_NAME
from trainer.methods.tdm_r1 import TDMR1
from trainer.oracles import Verdict
from trainer.roles import FAKE, STUDENT, STUDENT_EMA, SURROGATE, SURROGATE_EMA
from trainer.rounds import RoundCancelled, RoundLost, prepare, run_round
from trainer.watch.looks import hold_out


def test_it_works(make_spec, reddish, parent, monkeypatch):
    monkeypatch.setattr(trainer.rounds.judge, "clearly_worse", lambda new, old: False)  # four updates may do anything
    seen = []
    result = run_round(make_spec(), on_progress=seen.append)
    assert not same(weights(result), load_file(parent / "pytorch_lora_weights.safetensors"))
    assert [p.step for p in seen if p.phase == "train"] == [1, 2, 3, 4]
    assert {"reward", "surrogate", "student", "fake"} <= set(seen[-1].metrics)
    assert result.scores_before.keys() == result.scores_after.keys() != set()
    card = json.loads((Path(result.version_dir) / "version.json").read_text())
    assert card["sha256"] == result.sha256
    assert card["rounds_state"]["images_scored"] == 4 * 12


def margins_of_labels(make_spec, groups_file, rate):
    """What the surrogate finds liked images better by than disliked ones, before each update."""
    seen, more = [], {"updates": 8, "surrogate_updates": 4, "surrogate_lr": rate, "validation_images": 0}
    source = {"reward_oracle": None, "groups_file": str(groups_file)}
    run_round(make_spec(f"rate-{rate}", **source, settings=more), on_progress=seen.append)
    return [p.metrics["margin"] for p in seen if "margin" in p.metrics]


def test_it_learns_from_labels(make_spec, reddish, groups_file):
    learned, untrained = (margins_of_labels(make_spec, groups_file, rate) for rate in (1e-3, 0.0))
    assert sum(learned[-4:]) / 4 > 1e-3
    assert max(map(abs, untrained)) < 3e-4  # surrogate and teacher take other kernels, which in bf16 round otherwise


@pytest.mark.parametrize(("groups", "wanted"), [(0, 1), (12, 1), (115, 1), (232, 2), (346, 3), (10_000, 3)])
def test_a_round_looks_at_many_groups_more_often(groups, wanted):
    assert TDMR1Settings().surrogate_updates_for(groups) == wanted
    assert TDMR1Settings(surrogate_updates=5).surrogate_updates_for(groups) == 5
    assert TDMR1Settings(updates=120, surrogate_first=0.5).surrogate_updates_for(groups) == wanted


@pytest.mark.parametrize(("said", "stored", "each"), [(0, True, 2), (1, True, 1), (0, False, 1)])
def test_the_surrogate_learns_as_often_as_the_stored_groups_ask_for(
    make_spec, reddish, groups_file, monkeypatch, said, stored, each
):
    seen, update = [], TDMR1.surrogate_update
    monkeypatch.setattr(TDMR1, "surrogate_update", lambda *a: seen.append(a) or update(*a))
    source = {"reward_oracle": None, "groups_file": str(groups_file)} if stored else {}
    run_round(make_spec(**source, settings={"surrogate_updates": said, "validation_images": 0}))
    assert len(seen) == 4 * each  # three of the four groups have signal: 8 looks at 3 in 4 updates of 3


@pytest.mark.parametrize("mode", ["oracle", "labels", "labels, surrogate first"])
def test_a_resumed_round_equals_an_unbroken_one(make_spec, reddish, groups_file, mode):
    source = {} if mode == "oracle" else {"reward_oracle": None, "groups_file": str(groups_file)}
    first = 0.25 if "first" in mode else 0.0
    source |= {"settings": {"surrogate_first": first}}
    straight = run_round(make_spec("straight", **source))
    broken = make_spec("broken", **source)
    with pytest.raises(RoundCancelled, match="after 2 of 4"):
        run_round(broken, should_stop=stop_after(2))
    resumed = run_round(broken)
    assert same(weights(resumed), weights(straight))
    cards = [json.loads((Path(r.version_dir) / "version.json").read_text()) for r in (resumed, straight)]
    looks = [card["rounds_state"]["looks"] for card in cards]
    assert looks[0] == looks[1] and [look["step"] for look in looks[0]] == [2, 4]


@pytest.mark.parametrize("mode", ["oracle", "labels"])
def test_a_surrogate_that_learns_first_then_stays_while_the_student_follows(make_spec, reddish, groups_file, mode):
    source = {} if mode == "oracle" else {"reward_oracle": None, "groups_file": str(groups_file)}
    spec = make_spec(**source, settings={"surrogate_first": 0.5, "validate_every": 1})
    made = prepare(spec)
    roles = made.method.roles
    states = []
    for step in range(4):
        made.step(step)
        states.append({role: roles.state_dict(role) for role in roles.names})
    for role in (STUDENT, FAKE, STUDENT_EMA):
        assert same(states[0][role], states[1][role])
        assert not same(states[1][role], states[2][role])
    for role in (SURROGATE, SURROGATE_EMA):
        assert not same(states[0][role], states[1][role])
        assert same(states[1][role], states[3][role])
    assert made.state.images_scored == (24 if mode == "oracle" else 0)


@pytest.mark.parametrize("start", ["carried", "teacher", "student"])
def test_where_the_fake_starts(make_spec, reddish, tmp_path, start):
    first = run_round(make_spec())
    left = load_file(Path(first.version_dir) / FAKE_NAME)
    assert any(t.any() for name, t in left.items() if "lora_B" in name)
    spec = make_spec(parent_dir=first.version_dir, work_dir=str(tmp_path / "next"), settings={"fake_start": start})
    roles = prepare(spec).method.roles
    fake = roles.state_dict(FAKE)
    assert same(fake, left) == (start == "carried")
    assert same(fake, roles.state_dict(STUDENT)) == (start == "student")
    assert (start == "teacher") == (not any(t.any() for name, t in fake.items() if "lora_B" in name))


def test_a_fake_that_cannot_be_read_is_named(make_spec, reddish, tmp_path):
    first = run_round(make_spec())
    (Path(first.version_dir) / FAKE_NAME).write_bytes(b"nothing")
    spec = make_spec(parent_dir=first.version_dir, work_dir=str(tmp_path / "next"))
    with pytest.raises(ValueError, match=r"fake_start: .*fake\.safetensors cannot be read"):
        prepare(spec)


def test_nothing_is_validated_before_the_student_moves(make_spec, reddish):
    seen = []
    run_round(make_spec(settings={"surrogate_first": 0.5, "validate_every": 1}), on_progress=seen.append)
    assert [p.step for p in seen if "validation_reward" in p.metrics] == [3, 4]


def test_who_may_not_write_any_more_leaves_every_file_as_it_was(make_spec, reddish):
    spec = make_spec()
    with pytest.raises(RoundCancelled):
        run_round(spec, should_stop=stop_after(2))
    folder = Path(spec.work_dir)

    def state():
        return {f: f.read_bytes() for part in ("checkpoint", "best") for f in (folder / part).iterdir()}

    before, answers = state(), iter([True, False])  # lost while the new checkpoint was being written
    with pytest.raises(RoundLost, match="another worker has taken over"):
        run_round(spec, save_seconds=0, may_write=lambda: next(answers))
    assert state() == before
    assert not list(folder.glob("*.tmp"))
    (folder / "checkpoint.0123abcd.tmp").mkdir()  # of one that was killed while it wrote
    lost = iter([True] * 4)  # two checkpoints; the next question is before the version
    with pytest.raises(RoundLost):
        run_round(spec, save_seconds=0, may_write=lambda: next(lost, False))
    assert not Path(spec.output_dir).exists()
    assert not (folder / "checkpoint.0123abcd.tmp").exists()


@pytest.mark.parametrize(("rewards", "kept"), [([0.5, 0.7, 0.6], 4), ([0.5, 0.7, 0.1], 2)])
def test_the_newest_version_is_kept_unless_it_is_clearly_worse(make_spec, reddish, monkeypatch, rewards, kept):
    means = iter(rewards)

    def scripted(backend, rows, oracle, **sampling):
        mean = next(means)
        verdicts = [Verdict(mean + e, True, "", True) for e in (-0.3, 0.1, 0.2, 0.0)]
        if mean == 0.6:
            verdicts = [Verdict(v, True, "", True) for v in (0.05, 0.95, 0.9, 0.6)]  # some better, some worse: noise
        return Evaluation([], verdicts, {"reward": mean})

    monkeypatch.setattr(trainer.rounds.judge, "evaluate", scripted)
    assert run_round(make_spec(settings={"alarm": False})).best_step == kept


def test_groups_without_signal_are_refused(make_spec, groups_file, tmp_path):
    rows = [json.loads(line) | {"rewards": [1.0] * 4} for line in groups_file.read_text().splitlines()]
    path = tmp_path / "silent.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(ValueError, match="groups: none has both a liked and a disliked image"):
        run_round(make_spec(reward_oracle=None, groups_file=str(path)))


def test_groups_that_are_left_out_are_counted(make_spec, groups_file, caplog):
    spec = make_spec(reward_oracle=None, groups_file=str(groups_file), settings={"validation_images": 0, "updates": 1})
    file = groups_file.parent / "1.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    seen = []
    result = run_round(spec, on_progress=seen.append, trackers="none")
    assert (result.silent_groups, result.damaged_groups) == (1, 1)
    told = {name: value for name, value in seen[-1].metrics.items() if name.startswith("groups_")}
    assert told == {"groups_taught": 2, "groups_silent": 1, "groups_damaged": 1}
    assert 0 <= seen[-1].metrics["base_ranks"] <= 1
    assert str(file) in caplog.text


def test_a_bad_line_of_labels_is_named(make_spec, groups_file):
    groups_file.write_text(groups_file.read_text().replace("[1.0, 0.0, null, 1.0]", "[1.0, 7, null, 1.0]", 1))
    with pytest.raises(ValueError, match="line 1: rewards: 7"):
        run_round(make_spec(reward_oracle=None, groups_file=str(groups_file)))


def test_labels_and_an_oracle_together_are_refused(make_spec, groups_file):
    with pytest.raises(ValueError, match="groups_file, reward_oracle"):
        make_spec(groups_file=str(groups_file))


def test_a_damaged_checkpoint_is_named(tmp_path):
    module = torch.nn.Linear(2, 2)
    save_checkpoint(tmp_path / "c", step=3, modules={"m": module}, optimizers={})
    assert load_checkpoint(tmp_path / "c", modules={"m": module}, optimizers={})["step"] == 3
    data = bytearray((tmp_path / "c" / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "c" / "state.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="checksum is wrong"):
        load_checkpoint(tmp_path / "c", modules={"m": module}, optimizers={})


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (TDMR1Settings, {"updats": 3}, "updats: no such setting"),
        (TDMR1Settings, {"updates": 0}, "updates: 0 is out of range; use 1 to 100000"),
        (TDMR1Settings, {"student_lr": "fast"}, "student_lr: expected float"),
        (TDMR1Settings, {"updates": True}, "updates: expected int"),
        (TDMR1Settings, {"student_lr": float("nan")}, "student_lr: nan is out of range"),
        (TDMR1Settings, {"reference": "yesterday"}, "reference: 'yesterday' is not one of ema, frozen"),
        (DistillSettings, {"batch": -1}, "batch: -1 is out of range; use 1 to 4096"),
    ],
)
def test_settings_name_the_field_and_the_fix(cls, values, message):
    with pytest.raises(SettingsError, match=message):
        cls.from_json(values)


def test_worse_by_less_than_the_noise_is_not_clearly_worse():
    assert clearly_worse([0.0, 0.1, 0.0], [0.5, 0.5, 0.6])
    assert not clearly_worse([0.0, 1.0, 0.4], [1.0, 0.0, 0.5])
    assert not clearly_worse([0.5, 0.5], [0.5, 0.5])


def test_settings_survive_json():
    settings = TDMR1Settings.paper("ocr")
    assert TDMR1Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


@pytest.fixture
def spoil(monkeypatch):
    """From the second validation after the first update on, images have `left` of their contrast. The surrogate learns
    nothing, so it has nothing against them."""
    real = trainer.rounds.judge.evaluate

    def start(left):
        asked = iter(range(100))

        def spoilt(backend, rows, oracle, **sampling):
            seen = real(backend, rows, oracle, **sampling)
            if oracle is None or next(asked) < 2:  # without oracle: the parent's images, made again
                return seen
            return dataclasses.replace(seen, images=[ImageEnhance.Contrast(i).enhance(left) for i in seen.images])

        monkeypatch.setattr(trainer.rounds.judge, "evaluate", spoilt)

    return start


HACKED = {"updates": 4, "validate_every": 1, "surrogate_lr": 0.0}


def test_a_round_whose_images_are_spoilt_ends_and_keeps_what_was_before(make_spec, reddish, groups_file, spoil):
    spoil(0.3)
    spec = make_spec(reward_oracle=None, groups_file=str(groups_file), settings=HACKED)
    seen, before = [], {}

    def watch(progress):
        seen.append(progress)
        if progress.step == 1:
            before.update(load_file(Path(spec.work_dir) / "best" / "pytorch_lora_weights.safetensors"))

    result = run_round(spec, on_progress=watch)
    assert (result.steps, result.best_step) == (2, 1)
    assert result.alarm.startswith(
        "Stopped at update 2 of 4: the surrogate likes the new images no less than the parent's"
    )
    assert "contrast fell by 7" in result.alarm and result.alarm.endswith("Kept: update 1.")
    assert [p.alarm for p in seen if p.step] == ["", result.alarm]
    assert same(weights(result), before)
    assert seen[-1].metrics["opinion"] == 0
    assert seen[-1].metrics["second_contrast"] == pytest.approx(0.3, abs=0.1)
    assert json.loads((Path(result.version_dir) / "version.json").read_text())["alarm"] == result.alarm


def test_a_resumed_round_remembers_what_it_was_suspicious_of(make_spec, reddish, groups_file, spoil):
    spoil(0.47)
    spec = make_spec(reward_oracle=None, groups_file=str(groups_file), settings=HACKED)
    with pytest.raises(RoundCancelled):
        run_round(spec, should_stop=stop_after(2))
    result = run_round(spec)
    assert (result.steps, result.best_step) == (3, 1)
    assert "contrast fell by 5" in result.alarm


def test_without_the_alarm_it_goes_on(make_spec, reddish, spoil):
    spoil(0.3)
    result = run_round(make_spec(settings={**HACKED, "updates": 2, "alarm": False}))
    assert (result.steps, result.alarm) == (2, "")


def test_the_alarm_needs_no_oracle_and_no_validation_prompts(make_spec, reddish, groups_file):
    seen = []
    spec = make_spec(reward_oracle=None, groups_file=str(groups_file), validation=[], validation_oracle=None)
    result = run_round(spec, on_progress=seen.append)
    assert result.scores_before == result.scores_after == {}
    assert {"opinion", "second_contrast", "second_diversity"} <= set(seen[-1].metrics)
    assert "second_recognition" not in seen[-1].metrics  # random weights recognise nothing


def test_held_out_groups_are_judged_and_never_learned_from(make_spec, groups_file, monkeypatch):
    monkeypatch.setattr(trainer.watch.looks, "LEAST_HELD_OUT", 1)
    lines = groups_file.read_text().splitlines()[:3] * 5
    groups_file.write_text("".join(line + "\n" for line in lines))
    held, rest = hold_out(15, torch.Generator().manual_seed(0))
    assert len(held) == 1 and sorted([*held.tolist(), *rest.tolist()]) == list(range(15))
    taken, seen, take = [], [], GroupStore.take

    def note(store, index, *shape):
        taken.append(index.tolist())
        return take(store, index, *shape)

    monkeypatch.setattr(GroupStore, "take", note)
    settings = {"prompts_per_update": 14, "surrogate_updates": 1, "surrogate_lr": 0.0}
    run_round(
        make_spec(reward_oracle=None, groups_file=str(groups_file), validation_oracle=None, settings=settings),
        on_progress=seen.append,
    )
    # Once for what the base knows of them, then the updates.
    assert [sorted(index) for index in taken if len(index) > 1] == [rest.tolist()] * 5
    assert [index for index in taken if len(index) == 1] == [held.tolist(), rest[:1].tolist()] * 2  # the looks
    assert seen[-1].metrics["accuracy_held_out"] == 0.5  # it has learned nothing


def test_few_groups_are_all_learned_from():
    held, rest = hold_out(79, torch.Generator())
    assert (len(held), len(rest)) == (0, 79)
    held, rest = hold_out(1000, torch.Generator())
    assert (len(held), len(rest)) == (16, 984)
