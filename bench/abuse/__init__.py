"""What strangers and members may try against a running instance, and whether it holds.

    python -m bench.abuse                             starts an instance on SQLite and one on PostgreSQL
    python -m bench.abuse http://127.0.0.1:8000       one that runs already; only one of your own

A check is a function of the instance that tries one thing, bounded in time, and says whether the instance held:

    @check("stalled readers")
    def stalled_readers(instance: Instance) -> Outcome: ...

Each module of this folder has the checks of one kind; `__main__` lists the modules and runs them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import requests


@dataclass(frozen=True)
class Outcome:
    """Whether the instance held, and what was seen, in one line."""

    held: bool
    seen: str


class Visitor:
    """Somebody at a browser, without the browser: cookies and CSRF tokens; answers of any status come back."""

    def __init__(self, address: str):
        self.address, self.http = address, requests.Session()

    def log_in(self, name: str, password: str) -> None:
        """Raises RuntimeError where the name or the password is refused."""
        self.get("/login/")
        answer = self.post("/login/", username=name, password=password)
        if answer.url != f"{self.address}/":
            raise RuntimeError(f"{name}: the instance does not take this password; see --help")

    def get(self, path: str) -> requests.Response:
        return self.http.get(self.address + path, timeout=30)

    def post(self, path: str, json: object | None = None, files: dict | None = None, **form) -> requests.Response:
        headers = {"X-CSRFToken": self.http.cookies.get("csrftoken", ""), "Referer": self.address}
        return self.http.post(
            self.address + path, data=form or None, json=json, files=files, headers=headers, timeout=60
        )

    @property
    def headers(self) -> dict[str, str]:
        """What a client of one's own sends to be this visitor."""
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.http.cookies)
        return {"Cookie": cookies, "X-CSRFToken": self.http.cookies.get("csrftoken", ""), "Accept": "application/json"}


@dataclass
class Instance:
    """A running instance with a project and the passwords of two of its people: `annotator` and `admin`. `people` are the
    headers of others who label there, each a browser's; `server` is its process, where that is known."""

    address: str
    project: str
    passwords: dict[str, str]
    people: list[dict[str, str]] = field(default_factory=list)
    server: int | None = None
    visitors: dict[str, Visitor] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.address)
        return parts.hostname, parts.port or 80

    def visitor(self, name: str = "") -> Visitor:
        """Who logged in under this name, the same each time; a stranger, new each time, without a name."""
        if not name:
            return Visitor(self.address)
        if name not in self.visitors:
            visitor = Visitor(self.address)
            visitor.log_in(name, self.passwords[name])
            self.visitors[name] = visitor
        return self.visitors[name]

    def answer(self, visitor: Visitor) -> bool:
        """Whether somebody could rate the group that waits for them; True too when nothing waits."""
        asked = visitor.get(f"/p/{self.project}/groups/next/")
        if asked.status_code != 200:
            return False
        if not (groups := asked.json()["groups"]):
            return True
        group = groups[0]
        labels = {str(image["position"]): image["position"] % 2 == 0 for image in group["images"]}
        body = {"labels": labels, "seconds": 2, "key": secrets.token_hex(8)}
        return visitor.post(f"/p/{self.project}/groups/{group['group']}/submit/", json=body).status_code == 200


CHECKS: dict[str, Callable[[Instance], Outcome]] = {}


def check(name: str):
    """Registers a check under the name by which its line and `--only` call it."""

    def register(function: Callable[[Instance], Outcome]):
        CHECKS[name] = function
        return function

    return register
