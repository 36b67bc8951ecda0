"""What is sent: files that unpack, numbers beyond all bounds, and such as no type holds."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from html.parser import HTMLParser

import psutil
import requests

from bench.abuse import Instance, Outcome, Visitor, check
from bench.abuse.files import HOSTILE

SLOWEST = 3.0  # seconds that refusing a number, or showing a page, may take
MEMORY = 300  # MB that the server may grow by while it refuses a file
TEXT = 280_000  # characters of guidelines that took 17 s a page
HUGE = ("1501", "2147483647", "-1", "9" * 5000, "²", "1e400", "inf", "nan")
OTHER = ("٣", "１", "1_0", "0x1")  # digits of other scripts and languages, which a key is not written with
FIELDS = (
    "group_size",
    "images_made",
    "overlap",
    "overlap_most",
    "sure",
    "answer_budget",
    "ready_target",
    "auto_start_after",
    "gold_rate",
    "work_hour_cost",
    "machine_hour_cost",
)
# Fields of which some of HUGE are right.
RIGHT = {
    "answer_budget": ("1501",),
    "auto_start_after": ("1501",),
    "work_hour_cost": ("1501",),
    "machine_hour_cost": ("1501",),
}
JSON_NUMBERS = ("1" + "0" * 400, "9" * 5000, "1e400", "-1e99999", "NaN", "-Infinity", '"²"')


class Form(HTMLParser):
    """The fields of a page's forms as a browser would send them."""

    def __init__(self, text: str):
        super().__init__()
        self.values: dict[str, str] = {}
        self._name, self._select, self._text = "", "", None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        """A field."""
        about = dict(attrs)
        name, value = about.get("name") or "", about.get("value") or ""
        if tag == "input" and name and (about.get("type") not in ("checkbox", "radio") or "checked" in about):
            self.values.setdefault(name, value or ("on" if about.get("type") == "checkbox" else ""))
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and ("selected" in about or self._select not in self.values):
            self.values[self._select] = value
        elif tag == "textarea":
            self._name, self._text = name, []

    def handle_data(self, data: str) -> None:
        """Text of a textarea."""
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        """The end of a field."""
        if tag == "textarea" and self._text is not None:
            self.values[self._name], self._text = "".join(self._text).removeprefix("\n"), None
        elif tag == "select":
            self._select = ""


def timed(work: Callable[..., requests.Response], *arguments, **more) -> tuple[requests.Response, float]:
    """An answer and how many seconds it took."""
    started = time.monotonic()
    return work(*arguments, **more), time.monotonic() - started


@check("files that unpack")
def files(instance: Instance) -> Outcome:
    """Each is refused at each address that takes files, at once and without memory."""
    visitor, wrong, slow = instance.visitor("admin"), [], 0.0
    base = f"/p/{instance.project}"
    before = memory(instance)
    for kind, (name, make) in HOSTILE.items():
        data = make()
        for path, field in ((f"{base}/import/", "file"), (f"{base}/prompts/", "prompts_file")):
            answer, took = timed(visitor.post, path, files={field: (name, data)}, validation_share="0.1")
            slow = max(slow, took)
            if not (400 <= answer.status_code < 500 or 'class="error"' in answer.text):
                wrong.append(f"{kind} at {path}: {answer.status_code}")
    grown = memory(instance) - before
    seen = f"{len(HOSTILE)} files at 2 addresses, refused within {slow:.1f} s"
    seen += f"; the server grew by {grown:.0f} MB" if instance.server else ""
    return Outcome(not wrong and grown < MEMORY, "; ".join(wrong) or seen)


def memory(instance: Instance) -> float:
    """MB that the server has taken at most, where it is known."""
    if instance.server is None:
        return 0.0
    return psutil.Process(instance.server).memory_info().rss / 1e6


@check("numbers beyond all bounds")
def bounds(instance: Instance) -> Outcome:
    """The settings page refuses them, and long guidelines; the longest that it takes are shown at once."""
    visitor, path = instance.visitor("admin"), f"/p/{instance.project}/settings/"
    form = Form(visitor.get(path).text).values
    wrong, slow, tried = [], 0.0, 0
    for field in FIELDS:
        for value in HUGE:
            if value not in RIGHT.get(field, ()):
                answer, took = timed(visitor.post, path, **{**form, field: value})
                slow, tried = max(slow, took), tried + 1
                if answer.status_code != 400:
                    wrong.append(f"{field}={value[:20]}: {answer.status_code}")
    if visitor.post(path, **{**form, "guidelines": "*" * TEXT}).status_code != 400:
        wrong.append(f"guidelines of {TEXT:,} characters are taken")
    page = _longest(visitor, path, form, f"/p/{instance.project}/guidelines/")
    if slow > SLOWEST or page > SLOWEST:
        wrong.append(f"a refusal took {slow:.1f} s, the page of guidelines {page:.1f} s")
    seen = f"{tried} numbers and {TEXT:,} characters refused, each within {slow:.2f} s"
    return Outcome(not wrong, "; ".join(wrong) or f"{seen}; the longest guidelines are shown again in {page:.2f} s")


def _longest(visitor: Visitor, path: str, form: dict[str, str], page: str) -> float:
    """Seconds that the page of the worst guidelines of a length that is allowed takes once they were seen; afterwards they
    are as before."""
    kept = visitor.post(path, **{**form, "guidelines": ("*_[" * 7000)[:20_000]})
    try:
        visitor.get(page)  # rendered once
        answer, took = timed(visitor.get, page)
        return took if kept.ok and answer.ok else float("inf")
    finally:
        visitor.post(path, **form)


@check("numbers that no type holds")
def numbers(instance: Instance) -> Outcome:
    """In answers, rounds, queries and pages: none is answered with a 5xx, or taken."""
    annotator, admin, base = instance.visitor("annotator"), instance.visitor("admin"), f"/p/{instance.project}"
    groups = annotator.get(f"{base}/groups/next/").json()["groups"]
    task = groups[0]["group"] if groups else "1"
    bodies = [f'{{"labels": {{"0": true}}, "key": "{secrets.token_hex(4)}", "seconds": {n}}}' for n in JSON_NUMBERS]
    bodies += [f'{{"labels": {{"{n}": true}}, "key": "k", "seconds": 1}}' for n in (*HUGE, *OTHER)]
    found = [(f"submit {body[:60]}", _raw(annotator, f"{base}/groups/{task}/submit/", body)) for body in bodies]
    for number in JSON_NUMBERS:
        body = f'{{"kind": "broken", "position": {number}, "key": "k"}}'
        found.append((f"flag {number[:20]}", _raw(annotator, f"{base}/groups/{task}/flag/", body)))
    wrong = [f"{what}: {status}" for what, status in found if not 400 <= status < 500]
    values = (*HUGE[1:], *OTHER)
    start = Form(admin.get(f"{base}/rounds/start/").text).values
    pages = (
        "versions/?page=",
        "prompts/?page=",
        "export/?version=",
        "quality/?page=",
        "review/?before=",
        "audit/?page=",
    )
    for value in values:
        answer = admin.post(f"{base}/rounds/start/", **{**start, "seed": value, "updates": "9" * 30})
        if answer.status_code >= 500:
            wrong.append(f"round {value[:20]}: {answer.status_code}")
        for page in pages:
            answer = admin.get(f"{base}/{page}{requests.utils.quote(value)}")
            if answer.status_code >= 500:
                wrong.append(f"{page}{value[:20]}: {answer.status_code}")
    tried = len(found) + len(values) * (1 + len(pages))
    return Outcome(not wrong, "; ".join(wrong)[:300] or f"{tried} requests, none answered with a 5xx, no number taken")


def _raw(visitor: Visitor, path: str, body: str) -> int:
    """The status of an answer to a body that no JSON library writes."""
    headers = {"X-CSRFToken": visitor.http.cookies.get("csrftoken", ""), "Referer": visitor.address}
    headers["Content-Type"] = "application/json"
    return visitor.http.post(visitor.address + path, data=body.encode(), headers=headers, timeout=30).status_code
