"""A client of Likestep's REST API in one file, standard library only: copy it, or import it from here.

    from likestep_client import Likestep

    with_token = Likestep("https://likestep.example.org", "my-project", token="ls_…")
    for task in with_token.tasks(limit=2):
        labels = {image.position: good(with_token.image(image)) for image in task.images}
        with_token.decide(task, labels, key=f"run-7-{task.id}")
    with_token.export_to("labels.parquet", format="labels", container="parquet")

Every method raises `LikestepError` with the server's sentence. Requests that change nothing, and those with a key, are
tried again when the line or the server fails, or when the rate limit asks to wait.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import io
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
TRIES = 4
PAGE = 500
IMAGES_AT_ONCE, BYTES_AT_ONCE = 400, 60_000_000  # of a folder, in an archive
RETRIED = (429, 502, 503, 504)


class LikestepError(Exception):
    """The server's refusal; `status` is HTTP's, 0 when there was no answer."""

    def __init__(self, status: int, detail: str):
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True)
class Image:
    """An image of a group; `Likestep.image` gets its bytes. Those of tasks have no id and no seed."""

    position: int
    url: str
    width: int
    height: int
    id: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Task:
    """A group that is leased to the token's owner, by a name of its own."""

    id: str
    prompt: str
    images: list[Image]


@dataclass(frozen=True)
class Group:
    """A group and, when it has labels, what they come to by position (0..1, None: undecided)."""

    id: int
    prompt: str
    version: int | None  # None: images that somebody brought in
    state: str
    created_at: str
    rewards: list[float | None] | None
    images: list[Image]


@dataclass(frozen=True)
class Label:
    """What became of a like or dislike; of a person, or of an oracle. The newest one with the same `whose` counts, and
    without `liked` (None) there is no label any more."""

    id: int
    change: str  # labelled, undone, left_out, restored or overruled
    group: int
    position: int
    annotator: str | None
    oracle: str | None
    liked: bool | None
    score: float | None
    created_at: str
    reason: str | None = None  # of a dislike, or what the oracle says
    box: list[float] | None = None  # of a dislike: left, top, width, height as shares of the image

    @property
    def whose(self) -> tuple:
        """What it is about: the image, who spoke, and whether as a reviewer, whose word stands above everybody's."""
        return self.group, self.position, self.annotator, self.oracle, self.change == "overruled"


@dataclass(frozen=True)
class Prompt:
    """A prompt of the project."""

    id: int
    prompt: str
    split: str
    metadata: dict
    withdrawn: bool = False  # nothing new is made of it


@dataclass(frozen=True)
class Member:
    """Somebody who takes part: admin, reviewer or annotator."""

    id: int
    name: str
    role: str
    groups: int
    groups_of_the_week: int
    last_day: str | None


@dataclass(frozen=True)
class Invitation:
    """A link that makes one person a member; `link` is told when it is made, this once."""

    id: int
    role: str
    by: str
    created_at: str
    expires_at: str
    link: str = ""


@dataclass(frozen=True)
class Version:
    """A version of the model; only the published one generates."""

    number: int
    parent: int | None
    status: str
    sha256: str
    scores: dict
    created_at: str


@dataclass(frozen=True)
class Round:
    """A training round and how far it is."""

    number: int
    state: str
    phase: str
    step: int
    total: int
    base_version: int
    result_version: int | None
    scores_before: dict
    scores_after: dict
    error: str
    created_at: str
    finished_at: str | None
    alarm: str = ""
    labels_needed: int | None = None
    labels_had: int | None = None
    worth_it: bool | None = None


@dataclass(frozen=True)
class BlindTest:
    """A blind test of versions. `winner` is better than each other one; `ranking` has the versions, best first, each with
    version, score, low, high, answers and `against` the others; a list of tests leaves it out."""

    number: int
    state: str
    versions: list[int]
    shown: int
    most_votes: int
    votes: int
    alpha: float
    winner: int | None
    same: bool
    created_at: str
    finished_at: str | None
    ranking: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Imported:
    """What an import did: groups of a person or an oracle."""

    new: int
    known: int
    conflicts: list[str]


@dataclass(frozen=True)
class FileReport:
    """What became of a file of own images: taken, known, left (alone with its prompt) or skipped, and why."""

    name: str
    outcome: str
    why: str


@dataclass(frozen=True)
class ImagesImported:
    """Groups and images that were made of own images, and what became of each file."""

    groups: int
    images: int
    files: list[FileReport]


class Likestep:
    """One project of one server, as one token may use it."""

    def __init__(self, address: str, project: str, *, token: str, timeout: float = 60):
        self._root = address.rstrip("/") + "/api/v1"
        self._project = f"{self._root}/projects/{urllib.parse.quote(project)}"
        self._token, self._timeout = token, timeout

    # ------------------------------------------------ reading

    def me(self) -> dict[str, Any]:
        """`{project, user, name, scopes}` of the token."""
        return self._json("GET", f"{self._root}/me")

    def project(self) -> dict[str, Any]:
        """Settings and counts of the project."""
        return self._json("GET", f"{self._project}/")

    def prompts(self, *, split: str | None = None) -> Iterator[Prompt]:
        """The prompts, page by page."""
        return self._pages("prompts", Prompt, split=split)

    def groups(
        self, *, state: str | None = None, version: int | None = None, signal: bool | None = None
    ) -> Iterator[Group]:
        """The groups, page by page."""
        return self._pages("groups", Group, state=state, version=version, signal=signal)

    def group(self, number: int) -> Group:
        """One group."""
        return _make(Group, self._json("GET", f"{self._project}/groups/{number}"))

    def labels(self, *, after: int = 0, annotator: str | None = None) -> Iterator[Label]:
        """What became of labels since the entry `after`, to the newest one."""
        return self._pages("labels", Label, after=after, annotator=annotator)

    def follow_labels(self, *, after: int = 0, annotator: str | None = None, every: float = 10.0) -> Iterator[Label]:
        """The same without an end: it asks again `every` seconds. Keep the last `id` to go on from it another time."""
        while True:
            for label in self.labels(after=after, annotator=annotator):
                after = label.id
                yield label
            time.sleep(every)

    def reasons(self) -> list[str]:
        """What people may say of a dislike."""
        return self._json("GET", f"{self._project}/reasons")["reasons"]

    def members(self) -> Iterator[Member]:
        """Who takes part."""
        return self._pages("members", Member)

    def invitations(self) -> Iterator[Invitation]:
        """The invitations that still work."""
        return self._pages("invitations", Invitation)

    def versions(self) -> Iterator[Version]:
        """The versions by number."""
        return self._pages("versions", Version)

    def rounds(self) -> Iterator[Round]:
        """The rounds by number."""
        return self._pages("rounds", Round)

    def round(self, number: int) -> Round:
        """One round."""
        return _make(Round, self._json("GET", f"{self._project}/rounds/{number}"))

    def blind_tests(self) -> Iterator[BlindTest]:
        """The blind tests by number, without their rankings."""
        return self._pages("comparisons", BlindTest)

    def blind_test(self, number: int) -> BlindTest:
        """One blind test with its ranking so far."""
        return _make(BlindTest, self._json("GET", f"{self._project}/comparisons/{number}"))

    def image(self, image: Image) -> bytes:
        """An image's WebP bytes."""
        path = urllib.parse.urlsplit(image.url).path.partition("/api/v1")[2]  # whatever the server calls itself
        with self._open("GET", f"{self._root}{path}") as answer:
            return answer.read()

    # ------------------------------------------------ labelling

    def tasks(self, *, limit: int = 1) -> list[Task]:
        """Up to `limit` (4 at most) groups to decide on, those that were leased before among them."""
        answer = self._json("POST", f"{self._project}/tasks?limit={limit}", {})
        return [_make(Task, item) for item in answer["items"]]

    def decide(
        self,
        task: Task | str,
        labels: Mapping[int, bool],
        *,
        why: Mapping[int, dict] | None = None,
        seconds: float = 0,
        key: str | None = None,
    ) -> None:
        """Like (True) or dislike (False) every image by position, and say `{reason, box}` of dislikes if wanted. With the
        same key it may be sent again."""
        name = task if isinstance(task, str) else task.id
        body = {
            "labels": {str(k): bool(v) for k, v in labels.items()},
            "why": {str(k): v for k, v in (why or {}).items()},
            "seconds": seconds,
            "key": key or uuid.uuid4().hex,
        }
        self._json("POST", f"{self._project}/tasks/{name}/decision", body, again=True)

    def skip(self, task: Task | str, *, reason: str = "", key: str | None = None) -> None:
        """Leave a group to somebody else."""
        name = task if isinstance(task, str) else task.id
        body = {"reason": reason, "key": key or uuid.uuid4().hex}
        self._json("POST", f"{self._project}/tasks/{name}/skip", body, again=True)

    # ------------------------------------------------ administration

    def add_prompts(self, prompts: list[dict]) -> int:
        """Add `{prompt, split?, metadata?}`; returns how many are new."""
        return self._json("POST", f"{self._project}/prompts", {"prompts": prompts}, again=True)["new"]

    def withdraw_prompts(self, ids: list[int]) -> int:
        """Make no more images of these prompts; returns how many were in use."""
        return self._json("POST", f"{self._project}/prompts/withdraw", {"ids": ids}, again=True)["changed"]

    def restore_prompts(self, ids: list[int]) -> int:
        """Make images of these prompts again; returns how many were withdrawn."""
        return self._json("POST", f"{self._project}/prompts/restore", {"ids": ids}, again=True)["changed"]

    def tag_prompts(self, ids: list[int], tag: str) -> int:
        """Give these prompts a tag, or none (""); returns how many had another."""
        return self._json("POST", f"{self._project}/prompts/tag", {"ids": ids, "tag": tag}, again=True)["changed"]

    def set_reasons(self, reasons: list[str]) -> list[str]:
        """Another list of what people may say of a dislike."""
        return self._json("PUT", f"{self._project}/reasons", {"reasons": reasons}, again=True)["reasons"]

    def change_role(self, member: int, role: str) -> Member:
        """Give the member of this id another role: annotator, reviewer or admin."""
        return _make(Member, self._json("PUT", f"{self._project}/members/{member}", {"role": role}, again=True))

    def remove_member(self, member: int) -> None:
        """Somebody takes part no more, at once; their labels stay and count."""
        self._json("DELETE", f"{self._project}/members/{member}")

    def invite(self, role: str = "annotator") -> Invitation:
        """Make an invitation; its `link` is told this once."""
        return _make(Invitation, self._json("POST", f"{self._project}/invitations", {"role": role}))

    def revoke_invitation(self, invitation: int) -> None:
        """End an invitation that nobody has used."""
        self._json("DELETE", f"{self._project}/invitations/{invitation}")

    def start_round(self, settings: dict | None = None, *, key: str | None = None) -> Round:
        """Start a round; the same key gives the round it started."""
        body = {"settings": settings or {}, "key": key or uuid.uuid4().hex}
        return _make(Round, self._json("POST", f"{self._project}/rounds", body, again=True))

    def cancel_round(self, number: int) -> Round:
        """Ask a round to stop."""
        return _make(Round, self._json("POST", f"{self._project}/rounds/{number}/cancel", {}, again=True))

    def publish(self, version: int) -> Version:
        """Let this version generate; an older one too."""
        return _make(Version, self._json("POST", f"{self._project}/versions/{version}/publish", {}, again=True))

    def start_blind_test(self, versions: list[int], *, shown: int = 2, most_votes: int = 400) -> BlindTest:
        """Let people compare these versions, `shown` at once; more than two they put in order."""
        body = {"versions": versions, "shown": shown, "most_votes": most_votes}
        return _make(BlindTest, self._json("POST", f"{self._project}/comparisons", body))

    def stop_blind_test(self, number: int) -> BlindTest:
        """End it as it stands."""
        return _make(BlindTest, self._json("POST", f"{self._project}/comparisons/{number}/stop", {}, again=True))

    def create_webhook(self, url: str, events: list[str], *, every: int = 100) -> dict[str, Any]:
        """`{id, url, events, every, active, secret}`; the secret is given this once."""
        return self._json("POST", f"{self._project}/webhooks", {"url": url, "events": events, "every": every})

    # ------------------------------------------------ out and in

    def export_to(self, path: str | Path, *, format: str = "labels", container: str = "", **filters) -> int:
        """Stream an export into a file; returns its bytes. The file appears when it is whole.

        Without a `container` it is the format's usual file.
        `filters`: version, split, since, until (YYYY-MM-DD), annotator, signal.
        """
        query = _query(format=format, container=container, **filters)
        path = Path(path)
        part = path.with_name(path.name + ".part")
        size = 0
        with self._open("GET", f"{self._project}/export?{query}") as answer, part.open("wb") as file:
            while piece := answer.read(1 << 16):
                size += file.write(piece)
        part.replace(path)
        return size

    def import_labels(self, path: str | Path) -> Imported:
        """Give the labels of a `labels` export back; the same file may come any number of times."""
        path = Path(path)
        answer = self._send_file("import", path.name, path.read_bytes())
        return Imported(answer["new"], answer["known"], answer["conflicts"])

    def import_images(
        self, path: str | Path, *, prompt: str = "", generate: bool = False, rater: str = ""
    ) -> ImagesImported:
        """Bring own images in: an archive, a table (Parquet, JSONL), an image, or a folder of images with their captions,
        which is sent in archives of a few hundred. `prompt` is that of images that bring none; `generate` makes new images
        of new prompts too; `rater` names who gave a table's labels (empty: they are left out)."""
        query, path = _query(prompt=prompt, generate=generate, rater=rater), Path(path)
        groups, images, files = 0, 0, []
        for name, data in _archives(path) if path.is_dir() else [(path.name, path.read_bytes())]:
            answer = self._send_file(f"images?{query}", name, data)
            groups, images = groups + answer["groups"], images + answer["images"]
            files += [FileReport(**line) for line in answer["files"]]
        return ImagesImported(groups, images, files)

    # ------------------------------------------------ the wire

    def _send_file(self, place: str, name: str, data: bytes) -> dict[str, Any]:
        border = uuid.uuid4().hex
        name = name.replace('"', "'")
        head = f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + f"\r\n--{border}--\r\n".encode()
        return self._json(
            "POST", f"{self._project}/{place}", body, f"multipart/form-data; boundary={border}", again=True
        )

    def _pages(self, name: str, kind: type[T], *, after: int = 0, **filters) -> Iterator[T]:
        following: int | None = after
        while following is not None:
            answer = self._json("GET", f"{self._project}/{name}?{_query(after=following, limit=PAGE, **filters)}")
            yield from (_make(kind, item) for item in answer["items"])
            following = answer["next"]

    def _json(self, method: str, url: str, body=None, kind: str = "application/json", *, again: bool = False) -> Any:
        with self._open(method, url, body, kind, again=again) as answer:
            data = answer.read()
        return json.loads(data) if data else None

    def _open(self, method: str, url: str, body=None, kind: str = "application/json", *, again: bool = False):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json, */*"}
        if data is not None:
            headers["Content-Type"] = kind
        for attempt in range(TRIES):
            last = attempt == TRIES - 1 or not (again or method == "GET")
            try:
                request = urllib.request.Request(url, data, headers, method=method)
                return urllib.request.urlopen(request, timeout=self._timeout)
            except urllib.error.HTTPError as error:
                if last or error.code not in RETRIED:
                    raise LikestepError(error.code, _detail(error)) from None
                waited = error.headers.get("Retry-After", "")
                time.sleep(min(60.0, float(waited)) if waited.replace(".", "", 1).isdigit() else 2**attempt)
            except (urllib.error.URLError, OSError) as error:
                if last:
                    raise LikestepError(0, f"no answer from {url}: {error}") from error
                time.sleep(2**attempt)
        raise AssertionError("the last try returns or raises")


def check_signature(secret: str, header: str, body: bytes, *, oldest: float = 300) -> bool:
    """Whether a webhook's `X-Likestep-Signature` is right for its raw body, and not older than `oldest` seconds."""
    try:
        parts = dict(part.split("=", 1) for part in header.split(","))
        moment, given = int(parts["t"]), parts["v1"]
    except (ValueError, KeyError):
        return False
    right = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(right, given) and abs(time.time() - moment) <= oldest


def check_standard_signature(secret: str, headers: Mapping[str, str], body: bytes, *, oldest: float = 300) -> bool:
    """Whether a webhook's `webhook-signature` (Standard Webhooks) is right for its raw body, and not older than `oldest`
    seconds; any library of that scheme does the same."""
    found = {name.lower(): value for name, value in headers.items()}
    try:
        moment = int(found["webhook-timestamp"])
        key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
        signed = f"{found['webhook-id']}.{moment}.".encode() + body
        given = found["webhook-signature"].split()
    except (ValueError, KeyError):
        return False
    right = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return any(hmac.compare_digest(right, one) for one in given) and abs(time.time() - moment) <= oldest


def _archives(folder: Path) -> Iterator[tuple[str, bytes]]:
    """A folder's images with their captions and tables as archives within a server's bounds. Files of one prompt should
    stand together by name: groups are made of each archive's."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    beside = {".txt", ".jsonl", ".csv"}
    tables = [file for file in files if file.name.lower() in ("metadata.jsonl", "metadata.csv")]
    images = [file for file in files if file.suffix.lower() not in beside]
    while images:
        data, size, count = io.BytesIO(), 0, 0
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            for table in tables:
                archive.write(table, table.relative_to(folder).as_posix())
            while images and (
                not count or (count < IMAGES_AT_ONCE and size + images[0].stat().st_size < BYTES_AT_ONCE)
            ):
                image = images.pop(0)
                size, count = size + image.stat().st_size, count + 1
                for file in (image, image.with_suffix(".txt")):
                    if file.is_file():
                        archive.write(file, file.relative_to(folder).as_posix())
        yield f"{folder.name}.zip", data.getvalue()


def _query(**values) -> str:
    plain = {k: str(v).lower() if isinstance(v, bool) else v for k, v in values.items() if v is not None}
    return urllib.parse.urlencode(plain)


def _make(kind: type[T], data: dict) -> T:
    """A dataclass from JSON; keys of a newer server are passed over."""
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    known = {k: v for k, v in data.items() if k in names}
    if "images" in known:
        known["images"] = [_make(Image, image) for image in known["images"]]
    return kind(**known)


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        answer = json.loads(error.read())
    except ValueError:
        return f"the server answered with {error.code}"
    detail = answer.get("detail") or "; ".join(answer.get("errors", []))
    return detail if isinstance(detail, str) else json.dumps(detail)
