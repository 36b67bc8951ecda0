"""The command line with oracles and prompts that are not the demo's."""

import json
import re

import pandas as pd
import pytest

from common.geneval_lines import TAGS
from common.prompt_files import read_prompts
from common.settings import TDMR1Settings
from trainer.cli import main

ONE = {"tag": "single_object", "prompt": "a photo of a star", "include": [{"class": "star", "count": 1}]}
TWO = {"tag": "two_object", "prompt": "a star and a cross", "include": [{"class": "star", "count": 1}]}


@pytest.fixture(scope="module")
def trained(model_dir, tmp_path_factory):
    """(work folder, prompt file) of a round that the command line made, by an oracle with options, from its own prompts."""
    root = tmp_path_factory.mktemp("cli")
    more = {**TWO, "prompt": f"{TWO['prompt']} again", "split": "train"}
    rows = [{**ONE, "split": "train"}, more, {**TWO, "split": "validation"}]
    (root / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    first = f"distill --model {model_dir} --work {root / 'distill'} --updates 1 --batch 4 --rank 4 --alpha 8 "
    first += f"--prompts {root / 'prompts.jsonl'}"
    assert main(first.split()) == 0
    command = (
        f"train --model {model_dir} --student {root / 'distill' / 'student'} --work {root / 'work'} "
        f"--oracle jpeg:large=true --prompts {root / 'prompts.jsonl'} --preset ocr --trackers none --updates 1 "
        "--prompts-per-update 2 --group-size 2 --student-batch 2 --validation-images 2 --guidance 3"
    )
    assert main(command.split()) == 0
    return root / "work", root / "prompts.jsonl"


def test_a_round_by_any_oracle_with_the_papers_settings(trained):
    work, _ = trained
    about = json.loads((work / "version" / "version.json").read_text())
    wanted = TDMR1Settings.paper("ocr").to_json() | {"guidance": 3.0, "updates": 1, "prompts_per_update": 2}
    wanted |= {"group_size": 2, "student_batch": 2, "validation_images": 2}
    assert about["settings"] == wanted
    assert about["labels"] == {"jpeg": 4}
    assert about["scores_after"].keys() == {"two_object", "geneval", "strict", "reward"}
    assert not (work / "tensorboard").exists()


def test_any_oracle_evaluates_and_genevals_summary_reads_it(trained, model_dir, tmp_path, capsys):
    work, prompts = trained
    command = (
        f"evaluate --model {model_dir} --student {work / 'version'} --oracle jpeg:like_from=0.5 --prompts {prompts} "
        f"--split validation --repeats 3 --images {tmp_path} --picture {tmp_path / 'grid.png'} --batch 2"
    )
    assert main(command.split()) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["oracle"], told["images"]) == ("jpeg", 3)
    frame = pd.read_json(tmp_path / "results.jsonl", orient="records", lines=True)
    assert frame.groupby("tag")["correct"].mean().to_dict() == {"two_object": told["two_object"]}
    assert json.loads(frame["metadata"][0]) == TWO == json.loads((tmp_path / "00000" / "metadata.jsonl").read_text())
    assert sorted(p.name for p in (tmp_path / "00000" / "samples").iterdir()) == ["00000.png", "00001.png", "00002.png"]


def test_genevals_summary_meets_its_own_six_tags_alone(model_dir, tmp_path):
    command = f"evaluate --model {model_dir} --base --oracle jpeg --per-tag 1 --batch 7 --images {tmp_path}"
    assert main(command.split()) == 0
    tags = [json.loads(line)["tag"] for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sorted(tags) == sorted(TAGS)
    assert main([*command.split(), "--tags", "word,colors"]) == 0
    tags = [json.loads(line)["tag"] for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sorted(tags) == ["colors", "word"]


def test_what_cannot_be_used_is_one_sentence(trained, tmp_path, capsys):
    _, prompts = trained
    cases = {
        f"evaluate --prompts {prompts} --split test": "prompts.jsonl has none with the split test",
        f"evaluate --prompts {prompts} --split validation --tags words": "prompts: none is left",
        "evaluate --oracle beauty": "there is no oracle 'beauty'",
        f"train --oracle jpeg --prompts {tmp_path / 'none.jsonl'}": "none.jsonl cannot be read",
        "train --oracle jpeg --prompts README.md": "README.md has none with the split validation",
        "train --oracle ocr --trackers visdom": "trackers: 'visdom' is not one of",
        f"train --oracle ocr --prompts {prompts}": "prompts.jsonl, line 1: prompt: 'a photo of a star' has no text",
        "train --oracle ocr --updates 0": "updates: 0 is out of range",
    }
    for command, sentence in cases.items():
        assert main([*command.split(), *(["--work", str(tmp_path)] if "train" in command else [])]) == 2, command
        assert re.search(sentence, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [("{", "p.jsonl, line 2: not JSON"), ("[]", "line 2: not a JSON object"), ('{"prompt": " "}', "prompt: give a text"),
     ('{"prompt": "x", "metadata": 3}', "line 2: metadata: give a JSON object")],
)  # fmt: skip
def test_a_bad_line_of_a_prompt_file_is_named(tmp_path, line, sentence):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a cat"}\n' + line)
    with pytest.raises(ValueError, match=sentence):
        read_prompts(file, split="train")


def test_text_and_nested_metadata_are_read(tmp_path):
    (tmp_path / "p.txt").write_text('a sign that says "OPEN"\n\n a  cat\n')
    assert read_prompts(tmp_path / "p.txt", split="test") == [
        {"prompt": 'a sign that says "OPEN"'},
        {"prompt": "a cat"},
    ]
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "x", "metadata": {"tag": "colors"}}))
    assert read_prompts(tmp_path / "p.jsonl", split="test") == [{"prompt": "x", "tag": "colors"}]
