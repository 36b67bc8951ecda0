"""A round's curves and samples are in TensorBoard's event files; a tracker that fails does not end a round."""

import io
import logging

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.trainer.rounds_helpers import stop_after
from trainer.rounds import RoundCancelled, run_round
from trainer.trackers import Trackers, chosen


def events(work):
    found = EventAccumulator(str(work / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    return found.Reload()


def test_a_round_leaves_curves_and_samples(make_spec, reddish, tmp_path):
    seen = []
    run_round(make_spec(), on_progress=seen.append)
    found = events(tmp_path / "round" / "work")
    rewards = {e.step: e.value for e in found.Scalars("reward")}
    told = {p.step: p.metrics["reward"] for p in seen if "reward" in p.metrics}
    assert rewards == pytest.approx(told) and set(rewards) == {1, 2, 3, 4}
    assert [e.step for e in found.Scalars("validation_reward")] == [0, 2, 4]
    assert {tag: [e.step for e in found.Images(tag)] for tag in found.Tags()["images"]} == {
        "before": [0],
        "validation": [2, 4],
        "after": [4],
    }
    (after,) = found.Images("after")
    kept = Image.open(tmp_path / "round" / "work" / "grid" / "after.webp").convert("RGB")
    assert Image.open(io.BytesIO(after.encoded_image_string)).convert("RGB").tobytes() == kept.tobytes()


def test_a_resumed_round_goes_on_in_the_same_curves(make_spec, reddish, tmp_path):
    spec = make_spec()
    with pytest.raises(RoundCancelled):
        run_round(spec, should_stop=stop_after(2))
    run_round(spec)
    assert [e.step for e in events(tmp_path / "round" / "work").Scalars("reward")] == [1, 2, 3, 4]


def test_steps_after_the_checkpoint_are_logged_once(tmp_path):
    first = Trackers(tmp_path, ["tensorboard"], settings={})
    for step in (1, 2, 3):
        first.log({"loss": step}, step)
    first.close()
    again = Trackers(tmp_path, ["tensorboard"], settings={}, step=1)  # the checkpoint was of step 1
    again.log({"loss": 20.0}, 2)
    again.close()
    assert [(e.step, e.value) for e in events(tmp_path).Scalars("loss")] == [(1, 1.0), (2, 20.0)]


def test_which_trackers_are_asked_for(monkeypatch):
    monkeypatch.delenv("LIKESTEP_TRACKERS", raising=False)
    assert chosen() == ("tensorboard",)
    monkeypatch.setenv("LIKESTEP_TRACKERS", "none")
    assert chosen() == () and chosen("tensorboard, tensorboard") == ("tensorboard",)
    with pytest.raises(ValueError, match="trackers: 'visdom' is not one of"):
        chosen("tensorboard,visdom")


def test_a_tracker_that_fails_is_dropped_and_named(tmp_path, caplog):
    work = tmp_path / "work"
    trackers = Trackers(work, ["tensorboard"], settings={})
    trackers.log({"loss": 1.0}, 1)
    with caplog.at_level(logging.WARNING):
        trackers.image("broken", None, 1)
        trackers.log({"loss": 2.0}, 2)
        trackers.close()
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["tracker tensorboard is left out from here on"]
    assert [e.step for e in events(work).Scalars("loss")] == [1]


def test_no_tracker_leaves_nothing(tmp_path):
    trackers = Trackers(tmp_path / "work", (), settings={})
    trackers.log({"loss": 1.0}, 1)
    trackers.close()
    assert not (tmp_path / "work").exists()
