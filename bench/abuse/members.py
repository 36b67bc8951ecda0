"""After the log-in: what a member tries to learn or change that is not theirs."""

from __future__ import annotations

import re
import secrets

from bench.abuse import Instance, Outcome, Visitor, check

NUMBERS = range(1, 201)  # of groups that are tried
MOST_FLAGS = 50  # of one person within the check
GROUP, IMAGE = {"group", "prompt", "input", "images"}, {"position", "url", "width", "height"}


def _tried(instance: Instance, visitor: Visitor, action: str, **body) -> list[int]:
    """The numbers of groups on which the visitor could do it, without having been given any of them."""
    found = []
    for number in NUMBERS:
        path = f"/p/{instance.project}/groups/{number}/{action}/"
        answer = visitor.post(path, json={**body, "key": secrets.token_hex(8)})
        if answer.status_code == 200:
            found.append(number)
    return found


def _agreement(instance: Instance, visitor: Visitor) -> str:
    tiles = re.findall(r'<div class="tile"><b>(.*?)</b>', visitor.get(f"/p/{instance.project}/me/").text)
    return tiles[3]


@check("other people's labels")
def labels(instance: Instance) -> Outcome:
    """Groups that were never given are refused; answering, undoing and changing an answer moves no number one can read."""
    visitor = instance.visitor("annotator")
    positions = {str(position): position % 2 == 0 for position in range(24)}
    for size in (2, 4, 8, 16, 24):
        labels = dict(list(positions.items())[:size])
        if found := _tried(instance, visitor, "submit", labels=labels, seconds=2):
            return Outcome(False, f"answers to groups {found[:5]} were kept that were never given")
    base, before = f"/p/{instance.project}", _agreement(instance, visitor)
    waiting = visitor.get(f"{base}/groups/next/").json()["groups"]
    for flipped in range(len(waiting[0]["images"]) if waiting else 0):
        answer = {str(i["position"]): i["position"] != flipped for i in waiting[0]["images"]}
        key = secrets.token_hex(8)
        path = f"{base}/groups/{waiting[0]['group']}/submit/"
        if visitor.post(path, json={"labels": answer, "seconds": 2, "key": key}).status_code != 200:
            return Outcome(False, "an answer to a group that was given is refused")
        shown = _agreement(instance, visitor)
        visitor.post(f"{base}/undo/", json={"key": key})
        if shown != before:
            return Outcome(False, f"agreement went from {before} to {shown} with one answer that can be undone")
    return Outcome(
        True, f"{5 * len(NUMBERS)} answers to other groups refused; agreement stays {before} while answers change"
    )


@check("flags")
def flags(instance: Instance) -> Outcome:
    """Flags reach given groups only, and are few an hour."""
    visitor = instance.visitor("annotator")
    flag = {"kind": "broken", "position": None}
    if found := _tried(instance, visitor, "flag", **flag):
        return Outcome(False, f"groups {found[:5]} were flagged that were never given")
    base, keys, refused = f"/p/{instance.project}", [], ""
    for _ in NUMBERS:
        groups = visitor.get(f"{base}/groups/next/").json()["groups"]
        if not groups:
            break
        key = secrets.token_hex(8)
        answer = visitor.post(f"{base}/groups/{groups[0]['group']}/flag/", json={**flag, "key": key})
        if answer.status_code != 200:
            refused = answer.json()["error"]
            break
        keys.append(key)
    for key in keys:  # nothing stays behind
        visitor.post(f"{base}/undo/", json={"key": key})
    if len(keys) > MOST_FLAGS:
        return Outcome(False, f"{len(keys)} groups were flagged within a minute")
    return Outcome(
        True, f"{len(NUMBERS)} groups refused, {len(keys)} of those given flagged; then: {refused or 'none waits'}"
    )


@check("which groups are gold")
def gold(instance: Instance) -> Outcome:
    """What is told of a group is a name of chance, the prompt with its input image, and the images' places and sizes."""
    visitor = instance.visitor("annotator")
    told = visitor.get(f"/p/{instance.project}/groups/next/").json()
    headers = set()
    for group in told["groups"]:
        if set(group) != GROUP or any(set(image) != IMAGE for image in group["images"]):
            return Outcome(False, f"a group is told with {sorted(set(group) - GROUP)} and more")
        if not re.fullmatch(r"[0-9a-f]{32}", group["group"]):
            return Outcome(False, f"a group is called {group['group']}")
        for image in group["images"]:
            answer = visitor.get(image["url"])
            names = frozenset(name.lower() for name in answer.headers) - {"content-length"}
            headers.add((answer.status_code, names, answer.headers.get("Cache-Control")))
    numbers = [n for n in NUMBERS if visitor.get(f"/p/{instance.project}/images/{n}.webp").ok]
    if numbers:
        return Outcome(False, f"images {numbers[:5]} are shown by their numbers")
    if len(headers) > 1:
        return Outcome(False, f"images come with headers that differ: {sorted(map(str, headers))}")
    return Outcome(True, f"{len(told['groups'])} groups by opaque names, their images with the same headers")
