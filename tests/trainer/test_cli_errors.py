"""What goes wrong at the command line is one sentence and a status: 2 for a wrong call, 1 for something in its way."""

import errno
import json
import os
import signal

import pytest
from safetensors import SafetensorError

from tests.trainer.rounds_helpers import LINES
from trainer.cli import main
from trainer.oracles import registry
from trainer.oracles.base import OracleError, Verdict

HUGE = "9" * 400
# (arguments, status, what the sentence says); MODEL is a tiny model's folder, HERE an empty one.
TABLE = [
    ("", 2, "required: COMMAND"),
    ("paint x", 2, "invalid choice: 'paint'"),
    ("generate cat HERE/cat.xyz --model MODEL --base", 2, "must end in one of .png, .webp, .jpg, .jpeg"),
    ("generate cat HERE/file/cat.png --model MODEL --base --count 1", 1, "file"),
    ("generate cat HERE/cat.png --model HERE --base", 2, "model: HERE has no model_index.json"),
    ("generate cat HERE/cat.png --model MODEL --student HERE", 2, "version: HERE has no pytorch_lora_weights"),
    ("generate cat HERE/cat.png --model MODEL --base --count 0", 2, "'0' is no whole number from 1 to"),
    ("generate cat HERE/cat.png --model MODEL --base --count -3", 2, "'-3' is no whole number from 1 to"),
    ("generate cat HERE/cat.png --model MODEL --base --count ²", 2, "'²' is no whole number"),
    ("generate cat HERE/cat.png --model MODEL --base --columns 0", 2, "argument --columns"),
    ("generate cat HERE/cat.png --model MODEL --base --seed -1", 2, "argument --seed"),
    (f"generate cat HERE/cat.png --model MODEL --base --seed {HUGE}", 2, "is no whole number from 0 to 9,223,372,036"),
    (
        "generate cat HERE/cat.png --model MODEL --base --device cuda:99",
        2,
        "'cuda:99' is not here; this machine has cpu",
    ),
    ("generate cat HERE/cat.png --model MODEL --base --device gpu", 2, "'gpu' is not here"),
    ("draw HERE/scenes.txt", 2, "must end in one of"),
    ("draw HERE/scenes.png --split tests", 2, "invalid choice: 'tests'"),
    ("evaluate --model MODEL --base --oracle nobody", 2, "oracle: there is no oracle 'nobody'"),
    ("evaluate --model MODEL --base --per-tag 0", 2, "argument --per-tag"),
    ("evaluate --model MODEL --base --steps 0", 2, "argument --steps"),
    ("evaluate --model MODEL --base --prompts HERE/none.txt", 2, "HERE/none.txt cannot be read"),
    ("evaluate --model MODEL --base --prompts HERE", 2, "HERE cannot be read"),
    ("train --model MODEL --oracle scenes --groups x", 2, "give one of the two, labels or an oracle"),
    ("train --model MODEL", 2, "one of the arguments --oracle --groups is required"),
    ("train --model MODEL --student HERE --groups HERE/none.jsonl --work HERE/w", 1, "none.jsonl: No such file"),
    ("train --model MODEL --student HERE --oracle scenes --work HERE/w --updates 0", 2, "updates: 0 is out of range"),
    ("train --model MODEL --student HERE --oracle scenes --work HERE/w --preset best", 2, "invalid choice: 'best'"),
    (f"train --model MODEL --student HERE --oracle scenes --work HERE/w --seed {HUGE}", 2, "seed"),
    ("plan --model HERE --gpu 24GB", 2, "has no model_index.json"),
    ("plan --model MODEL --gpu huge", 2, "gpu"),
    ("export HERE/out --model MODEL --student HERE", 2, "version: HERE has no pytorch_lora_weights"),
    ("convert-ema HERE/none.ckpt HERE/out --model MODEL", 2, "HERE/none.ckpt does not exist"),
]


@pytest.mark.parametrize(("line", "status", "sentence"), TABLE, ids=lambda value: str(value)[:60])
def test_it_is_one_sentence(line, status, sentence, model_dir, tmp_path, capsys):
    (tmp_path / "file").touch()

    def filled(text):
        return text.replace("MODEL", str(model_dir)).replace("HERE", str(tmp_path))

    try:
        found = main([filled(word) for word in line.split()])
    except SystemExit as stop:
        found = stop.code
    said = capsys.readouterr().err
    assert (found, filled(sentence) in said) == (status, True), said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()[-1]) < 700


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(model_dir, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main(["generate", "cat", str(tmp_path / "cat.png"), "--model", str(model_dir), "--base"]) == 1
    assert "Permission denied" in capsys.readouterr().err


def test_a_full_disk(model_dir, tmp_path, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = tmp_path / "scenes.png"
    monkeypatch.setattr("common.files.os.fsync", full)
    assert main(["draw", str(file)]) == 1
    assert capsys.readouterr().err == f"error: {file}: No space left on device\n"
    assert not list(tmp_path.glob(".*")) and not file.exists()


class Counting:
    """Scores two updates' images, then fails."""

    name = "counting"

    def __init__(self, calls=2):
        self.calls = calls

    def score(self, images, prompts, metadata):
        self.calls -= 1
        if self.calls < 0:
            raise OracleError("reward.example did not answer after 3 tries")
        return [Verdict(float(i % 2), bool(i % 2), "", bool(i % 2)) for i in range(len(images))]


@pytest.fixture
def round_of(model_dir, parent, tmp_path, monkeypatch):
    """A round of three updates from an oracle, at the command line."""
    prompts = tmp_path / "prompts.jsonl"
    star = {"include": [{"class": "star", "count": 1}]}
    rows = [{**line, **star, "split": "train"} for line in LINES]
    rows.append({"prompt": "a pink star", **star, "split": "validation"})
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def call(oracle):
        monkeypatch.setattr(registry, "get_oracle", lambda spec: oracle)
        monkeypatch.setattr("trainer.rounds.stages.get_oracle", lambda spec: oracle)
        options = {
            "model": model_dir, "student": parent, "work": tmp_path / "work", "oracle": "scenes",
            "prompts": prompts, "updates": 3, "validation-images": 0,
            "prompts-per-update": 2, "group-size": 2, "student-batch": 2, "trackers": "none",
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return main(["train", *words])

    return call


def test_an_oracle_that_fails_loses_no_update(round_of, tmp_path, capsys):
    status, said = round_of(Counting()), capsys.readouterr().err
    assert status == 1, said
    assert "reward.example did not answer after 3 tries; what is saved in" in said and "same command" in said
    assert round_of(Counting(1)) == 0
    assert "train 3/3" in capsys.readouterr().out


def test_an_oracle_that_fails_ends_an_evaluation_in_one_sentence(model_dir, capsys, monkeypatch):
    monkeypatch.setattr("trainer.oracles.get_oracle", lambda spec: Counting(0))
    words = ["evaluate", "--model", str(model_dir), "--base", "--per-tag", "1", "--tags", "counting", "--steps", "1"]
    assert main(words) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: reward.example did not answer after 3 tries"


def test_a_disk_that_is_full_at_a_checkpoint(round_of, tmp_path, capsys, monkeypatch):
    def full(tensors, file):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("trainer.checkpoint.save_file", full)
    assert round_of(Counting(9)) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said and "goes on with the same command" in said and "Traceback" not in said


def test_ctrl_c_saves_and_says_how_to_go_on(round_of, capsys):
    class Interrupting(Counting):
        def score(self, images, prompts, metadata):
            os.kill(os.getpid(), signal.SIGINT)
            return super().score(images, prompts, metadata)

    before = signal.getsignal(signal.SIGINT)
    status, said = round_of(Interrupting(9)), capsys.readouterr().err
    assert status == 130, said
    assert "stopping after this update" in said and "stopped after 1 of 3 updates" in said
    assert "goes on with the same command" in said
    assert signal.getsignal(signal.SIGINT) is before
    assert round_of(Counting(2)) == 0  # the two updates that were left
