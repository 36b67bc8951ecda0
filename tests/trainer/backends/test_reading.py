"""What `common.reading` says is cut is what the families' text encoders do not see."""

import json
import shutil

import pytest
import torch
from transformers import CLIPTokenizer

from common import reading
from tests.trainer.backends.encoders import BYTES
from tests.trainer.backends.tiny import CASES
from trainer.backends import load_backend

LONG = "photos " + " ".join(f"word{n:03d}" for n in range(125))  # no window ends between its words


@pytest.mark.parametrize("family", CASES)
def test_what_is_cut_changes_nothing_and_what_is_read_does(family, tmp_path):
    torch.manual_seed(0)
    folder = CASES[family].build(tmp_path / family)
    (cut,) = reading.unread(folder, [LONG])
    assert cut and LONG.endswith(cut)
    read = LONG[: LONG.rindex(cut)].rstrip()
    backend = load_backend(folder)

    def seen(prompt):
        made = backend.encode([prompt])
        return torch.cat([made.embeds.flatten(), made.pooled.flatten()])

    assert reading.unread(folder, [read, "a cat", ""]) == ["", "", ""]
    assert torch.allclose(seen(read), seen(LONG), atol=1e-5)
    assert (seen(read[:-1]) - seen(LONG)).abs().max() > 1e-2


def test_a_clip_of_vocabulary_and_merges_reads_as_transformers_reads_it(tmp_path):
    merges = [("c", "a"), ("ca", "t</w>"), ("t", "h"), ("th", "e</w>")]
    start, end = "<|startoftext|>", "<|endoftext|>"
    words = [*BYTES, *(b + "</w>" for b in BYTES), "ca", "cat</w>", "th", "the</w>", start, end]
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(m) for m in merges)]))
    stock = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    for text in ("The cat's 12 hats!", "Ünder  ein, 3D-cat 🐈", "cat " * 90):
        assert reading._tokenizer(folder).encode(text).ids == stock(text)["input_ids"], text


def test_where_it_cannot_be_said_nothing_is(tmp_path):
    assert reading.unread(tmp_path / "nowhere", [LONG]) == [""]
    folder = CASES["sdxl"].build(tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    for broken in ("{", json.dumps({**index, "_class_name": "OtherPipeline"})):
        (folder / "model_index.json").write_text(broken)
        assert reading.unread(folder, [LONG]) == [""]
    (folder / "model_index.json").write_text(json.dumps(index))
    shutil.rmtree(folder / "tokenizer_2")
    assert reading.unread(folder, [LONG]) == [""]


def test_the_demo_reads_ten_words():
    words = "a red star left of a blue circle above a black square".split()
    assert reading.unread("models/demo", [" ".join(words), " ".join(words[:10])]) == ["black square", ""]
