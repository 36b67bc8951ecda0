"""The oracle that asks questions, against a server that speaks the chat API; and atoms, exact on drawn scenes."""

import base64
import io
import json
import math
import random

import pytest
from PIL import Image

from common.prompt_files import parse
from tests.trainer.oracles.serving import status
from trainer.demo.scenes.compositions import FEWEST, MOST, composition
from trainer.demo.scenes.draw import draw, sample_scene
from trainer.oracles import get_oracle
from trainer.oracles.atoms import atoms_of, holds, soft_tifa
from trainer.oracles.geneval import by_class
from trainer.oracles.questions import QuestionOracle
from trainer.oracles.scenes import detect
from trainer.oracles.server import ServerError

LINE = {"questions": ["Is it red?", ["How many are there?", "two"], ["Is it blue?", "no"]]}


def tokens(**probabilities):
    """An answer whose first token has these probabilities."""
    top = [{"token": f" {token}", "logprob": math.log(p)} for token, p in probabilities.items()]
    return {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"token": "x", "top_logprobs": top}]}}]}


def judge(handler, request):
    """Yes is as likely as the image is red; there are two, with .75."""
    image, text = request["messages"][0]["content"]
    data = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,"))
    red = Image.open(io.BytesIO(data)).getpixel((0, 0))[0] / 256
    if "How many" in text["text"]:
        return handler.answer(200, tokens(**{"2": 0.5, "Two": 0.25, "three": 0.25}))
    yes = red if "red" in text["text"] else 1 - red
    handler.answer(200, tokens(Yes=yes * 0.75, yes=yes * 0.25, No=1 - yes))


@pytest.fixture
def server(running):
    running.requests, running.answers = [], [judge]
    return running


def questions(server, **options):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    return QuestionOracle(**{"url": url, "model": "judge", "allow_private": True, "backoff": 0.01, **options})


def ask(oracle, *reds, line=LINE):
    images = [Image.new("RGB", (4, 4), (red, 0, 0)) for red in reds]
    return oracle.score(images, ["a prompt"] * len(reds), [line] * len(reds))


def test_scores_are_means_of_the_right_answers_probabilities(server):
    low, high = ask(questions(server), 64, 192)
    assert low.score == pytest.approx((0.25 * 0.75 * 0.25) ** (1 / 3)) and not low.liked
    assert high.score == pytest.approx(0.75) and high.liked and high.correct
    assert low.reason.startswith("1 of 3 right; Is it red? yes: 0.25")
    (mean,) = ask(questions(server, mean="arithmetic"), 64)
    assert mean.score == pytest.approx((0.25 + 0.75 + 0.25) / 3)
    path, _, request = server.requests[0]
    assert path == "/v1/chat/completions"
    assert {k: request[k] for k in ("model", "max_tokens", "temperature", "logprobs")} == {
        "model": "judge",
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
    }


def test_an_image_is_asked_about_once(server):
    oracle = questions(server, at_once=1)
    first = ask(oracle, 64, 64, 192)
    assert len(server.requests) == 6 and ask(oracle, 192, 64) == [first[2], first[0]]
    assert len(server.requests) == 6


def test_it_is_made_from_a_spec_and_tries_again_within_bounds(server):
    server.answers = [status(500), judge]
    url = f"http://127.0.0.1:{server.server_port}/v1"
    oracle = get_oracle(f"questions:url={url},model=judge,allow_private=true,backoff=0.01,at_once=1")
    assert ask(oracle, 192)[0].liked and len(server.requests) == 4
    server.answers = [status(503)]
    with pytest.raises(ServerError, match="questions: no answer after 2 tries; the last: status 503"):
        ask(questions(server, retries=1), 3)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"choices": [{"message": {"content": "Yes"}, "logprobs": None}]}, "the server must support logprobs"),
        ({"choices": []}, "no token probabilities"),
        (tokens(think=0.99, yes=0.01), "questions.model: it answers 'think' instead of yes or no"),
    ],
)
def test_an_answer_that_says_nothing_is_an_error(server, answer, message):
    server.answers = [lambda handler, request: handler.answer(200, answer)]
    with pytest.raises(ServerError, match=message):
        ask(questions(server), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": "median"}, "questions.mean"),
        ({"like_from": 0.0}, "questions.like_from"),
        ({"at_once": 0}, "questions.at_once"),
        ({"url": "ftp://x"}, "questions.url"),
    ],
)
def test_options_are_checked(server, options, message):
    with pytest.raises(ValueError, match=message):
        questions(server, **options)


@pytest.mark.parametrize(
    "line",
    [{"questions": "Is it?"}, {"questions": [""]}, {"vqa_list": [["a"]]}, {"sub_dims": "{"}, {"questions": [3.5]}],
)
def test_a_line_that_asks_nothing_is_refused(server, line):
    field = next(iter(line))
    with pytest.raises(ValueError, match=field):
        questions(server).check("a prompt", line)


def test_benchmarks_prompt_files_are_read_with_their_questions():
    unigen = 'index,prompt_en,sub_dims\n1,two pandas,"{""Testpoint Description"": [""two pandas"", ""ink""]}"\n'
    (row,) = parse(unigen, name="test_prompts_en.csv").rows
    assert row.prompt == "two pandas" and len(atoms_of(row.prompt, row.metadata)) == 2
    geneval2 = json.dumps(
        {"prompt": "two dogs", "atom_count": 2, "vqa_list": [["How many dogs?", "two"]], "skills": []}
    )
    (row,) = parse(geneval2, name="geneval2_data.jsonl").rows
    assert [(a.question, a.answer) for a in atoms_of(row.prompt, row.metadata)] == [("How many dogs?", "two")]
    oneig = json.dumps([{"category": "Anime_Stylization", "id": "000", "prompt_en": "a cat on a roof"}])
    (row,) = parse(oneig, name="oneig.json").rows
    assert row.prompt == "a cat on a roof" and len(atoms_of(row.prompt, row.metadata)) == 1


@pytest.mark.parametrize("count", range(FEWEST, MOST + 1))
def test_a_drawn_compositions_atoms_are_all_true(count):
    rng = random.Random(count)
    row = composition(count, rng)
    atoms = atoms_of(row.prompt, row.metadata)
    assert len(atoms) == count
    include, found = row.metadata["include"], by_class(detect(draw(sample_scene(row.metadata, rng))), threshold=0.0)
    assert all(holds(atom, include, found) for atom in atoms), (row.prompt, found)
    # An empty image has none of them.
    assert not any(holds(atom, include, {}) for atom in atoms)


def test_a_false_atom_is_told_from_the_true_ones():
    include = [{"class": "star", "count": 1, "color": "red"}, {"class": "heart", "count": 2, "position": ["above", 0]}]
    scene = {"include": [{**include[0], "color": "blue"}, {"class": "heart", "count": 1, "position": ["below", 0]}]}
    found = by_class(detect(draw(sample_scene(scene, random.Random(0)))), threshold=0.0)
    atoms = atoms_of("", {"include": include})
    assert [(a.kind, holds(a, include, found)) for a in atoms] == [
        ("object", True),
        ("color", False),
        ("object", True),
        ("count", False),
        ("position", False),
    ]


def test_soft_tifas_means():
    assert soft_tifa([1.0, 0.25]) == {"arithmetic": 0.625, "geometric": 0.5}
    assert soft_tifa([1.0, 0.0])["geometric"] < 1e-100
