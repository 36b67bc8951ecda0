"""An oracle that asks a vision-language model about each atom of a prompt, over the chat API that vLLM, SGLang and
llama.cpp's server share with OpenAI, and takes the probability of the right answer from the token probabilities.

A request has one image and one question, asks for one token, and for the most likely ones beside it.
"""

from __future__ import annotations

import base64
import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from trainer.oracles.atoms import Atom, atoms_of, soft_tifa
from trainer.oracles.base import Verdict
from trainer.oracles.server import Server, ServerError, at_least, png, read_json

REMEMBERED = 100_000  # answers
TOP = 20  # tokens; the most that vLLM tells by default
LEAST_KNOWN = 0.05  # of the probability must be on yes and no together where one of them is right
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
MEANS = ("geometric", "arithmetic")


class QuestionOracle:
    """Soft-TIFA by a server's model: an image's score is a mean of its atoms' probabilities. Liked, and correct, is one of
    whose atoms each is at least `like_from` likely."""

    name = "questions"

    def __init__(
        self,
        *,
        url: str,
        model: str,
        mean: str = "geometric",
        like_from: float = 0.5,
        at_once: int = 8,
        allow_private: bool = False,
        token_env: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        backoff: float = 1.0,
        max_response: int = 1_000_000,
    ):
        """`url` is the API's, with its `/v1`; `at_once` requests are made at a time; the others are those of `Server`.
        Raises ValueError that names the option."""
        if mean not in MEANS:
            raise ValueError(f"questions.mean: {mean!r} is not one of {', '.join(MEANS)}")
        if not 0 < like_from <= 1:
            raise ValueError(f"questions.like_from: is {like_from:g}; it must be above 0 and at most 1")
        at_least("questions.at_once", at_once, 1)
        self._model, self._mean, self._like_from, self._at_once = model, mean, like_from, at_once
        self._server = Server(
            self.name,
            url=f"{url.rstrip('/')}/chat/completions",
            allow_private=allow_private,
            token_env=token_env,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            max_response=max_response,
        )
        self._answers: OrderedDict[tuple[str, Atom], float] = OrderedDict()  # by the image's hash, oldest first
        self._lock = threading.Lock()

    def check(self, prompt: str, metadata: Mapping) -> None:
        """See `Oracle.check`."""
        atoms_of(prompt, metadata)

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`. Raises ServerError when the server keeps failing or answers something else."""
        atoms = [atoms_of(prompt, line) for prompt, line in zip(prompts, metadata, strict=True)]
        files = [png(image) for image in images]
        asked = [(file, atom) for file, own in zip(files, atoms, strict=True) for atom in own]
        with ThreadPoolExecutor(self._at_once) as pool:
            found = iter(list(pool.map(lambda pair: self._probability(*pair), asked)))
        return [self._verdict(own, [next(found) for _ in own]) for own in atoms]

    def _verdict(self, atoms: Sequence[Atom], probabilities: Sequence[float]) -> Verdict:
        wrong = [(p, a) for p, a in zip(probabilities, atoms, strict=True) if p < self._like_from]
        right = f"{len(atoms) - len(wrong)} of {len(atoms)} right"
        reason = "; ".join([right, *(f"{a.question} {a.answer}: {p:.2f}" for p, a in wrong)])
        return Verdict(soft_tifa(probabilities)[self._mean], not wrong, reason[:500], not wrong)

    def _probability(self, file: bytes, atom: Atom) -> float:
        """Of the atom's answer, from the server or remembered."""
        key = (hashlib.sha256(file).hexdigest(), atom)
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                return self._answers[key]
        answer = self._server.ask(self._request(file, atom))
        found = probability_of(atom.answer, read_tokens(answer))
        with self._lock:
            self._answers[key] = found
            while len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        return found

    def _request(self, file: bytes, atom: Atom) -> dict:
        kind = "yes or no" if atom.answer.lower() in ("yes", "no") else "one word"
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(file).decode()}"}}
        text = {"type": "text", "text": f"{atom.question} Answer with {kind}."}
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": [image, text]}],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": TOP,
        }


def read_tokens(data: bytes) -> dict[str, float]:
    """The first token's candidates in lower case, without what marks a word's beginning, with their probabilities. Raises
    ServerError, naming the field, on an answer that has none."""
    answer = read_json("questions", data)
    try:
        candidates = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        found: dict[str, float] = {}
        for candidate in candidates:
            token = candidate["token"].strip(" \n\tĠ▁.,:\"'*").lower()
            found[token] = found.get(token, 0.0) + math.exp(min(0.0, float(candidate["logprob"])))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ServerError(
            "questions.logprobs: the answer has no token probabilities; the server must support logprobs and top_logprobs"
        ) from error
    if not found or not all(math.isfinite(p) for p in found.values()):
        raise ServerError("questions.logprobs: the answer's token probabilities are not numbers")
    return found


def probability_of(answer: str, tokens: Mapping[str, float]) -> float:
    """The probability of an answer's first word; a number may be written in digits or as a word. Raises ServerError where
    yes or no is asked for and the model is about to say something else, as one that thinks first would."""
    word = answer.lower().split()[0].strip(".,")
    if word in ("yes", "no"):
        known = tokens.get("yes", 0.0) + tokens.get("no", 0.0)
        if known < LEAST_KNOWN:
            likely = max(tokens, key=tokens.__getitem__)
            raise ServerError(
                f"questions.model: it answers {likely!r:.40} instead of yes or no; take a model that does not think first, "
                "or turn its thinking off"
            )
    return min(1.0, sum(tokens.get(form, 0.0) for form in _forms(word)))


def _forms(word: str) -> set[str]:
    if word in NUMBERS:
        return {word, str(NUMBERS.index(word))}
    if word.isdecimal() and int(word) < len(NUMBERS):
        return {word, NUMBERS[int(word)]}
    return {word}
