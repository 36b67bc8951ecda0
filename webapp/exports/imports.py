"""Labels back in: lines of the `labels` export, checked as a whole, then given as if the people gave them now."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from common import tables
from common.intake import NotRows, Unreadable, check_json, form
from webapp.accounts.models import User
from webapp.campaigns.archive import check_open
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Project
from webapp.exports import identity
from webapp.labelling import decisions, scoring
from webapp.labelling.errors import LabellingError
from webapp.labelling.leases import give
from webapp.labelling.models import Generation, GroupDecision, Label, Outcome, UndoneDecision
from webapp.labelling.why import Why
from webapp.lib import texts

MOST_ROWS = 250_000
MOST_ERRORS = 200
NEEDED = ("group", "position", "liked")
READ = (*NEEDED, "annotator", "oracle", "score", "reason", "box", "seed", "seconds")  # columns; others are passed over
LONGEST = 10_000  # characters of a text in Parquet, where a dictionary may repeat a long one at no cost
LONGEST_LINE = 100_000  # bytes of a row in JSONL


@dataclass
class Imported:
    """What an import did, or, with `errors` (by line), why it did nothing. Counts are of a person's or oracle's groups."""

    new: int = 0
    known: int = 0
    conflicts: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def read_rows(data: bytes, name: str) -> tuple[list[tuple[int, dict]], list[str]]:
    """(line, row) of a JSONL or Parquet file, and what cannot be read, by line. A row has what is READ, none of it a list
    or an object."""
    if len(data) > settings.LIKESTEP_IMPORT_LIMIT:
        return [], [too_large(len(data))]
    try:
        found = form(data, name)
        if found == "Parquet":
            return list(enumerate(_parquet_rows(data), start=1)), []
        if found == "binary":
            raise NotRows(found)
    except Unreadable as error:
        return [], [_("file: %(error)s") % {"error": error}]
    return _json_rows(data)


def _json_rows(data: bytes) -> tuple[list[tuple[int, dict]], list[str]]:
    """The same of JSONL, line by line: a file of lists without end is never in memory as Python's."""
    found: list[tuple[int, dict]] = []
    errors: list[str] = []
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip():
            continue
        if len(found) == MOST_ROWS:
            return [], [_("file: it has more than %(most)s rows; split the file") % {"most": f"{MOST_ROWS:,}"}]
        row, wrong = _json_row(line)
        if row is not None:
            found.append((number, row))
        elif len(errors) < MOST_ERRORS:
            errors.append(_("line %(number)s: %(wrong)s") % {"number": number, "wrong": wrong})
    return found, errors


def _json_row(line: bytes) -> tuple[dict | None, str]:
    """What is READ of a line, or what is wrong with it."""
    if len(line) > LONGEST_LINE:
        return None, _("%(count)s bytes; a row has at most %(most)s") % {
            "count": f"{len(line):,}",
            "most": f"{LONGEST_LINE:,}",
        }
    try:
        check_json(line)
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        return None, _("not a JSON object")
    row = {name: row[name] for name in READ if name in row}
    for name, value in row.items():
        if isinstance(value, dict | list):
            return None, _("%(name)s: it is a list or an object") % {"name": name}
    return row, ""


def too_large(size: int) -> str:
    """What is said of a file above the limit."""
    return _("file: %(count)s bytes; split it into parts of at most %(most)s (LIKESTEP_IMPORT_LIMIT)") % {
        "count": f"{size:,}",
        "most": f"{settings.LIKESTEP_IMPORT_LIMIT:,}",
    }


def _parquet_rows(data: bytes) -> list[dict]:
    """The rows, read apart: a small file may not fit into memory. Raises Unreadable."""
    limits = tables.Limits(MOST_ROWS, 2 * settings.LIKESTEP_IMPORT_LIMIT, READ, LONGEST, flat=True)
    try:
        return [json.loads(line) for line in tables.read(data, limits)]
    except Unreadable as error:
        raise Unreadable(gettext_noop("not Parquet that can be read: %(error)s"), error=error) from error


def import_labels(project: Project, rows: Iterable[tuple[int, dict]], by=None) -> Imported:
    """Give the labels of `rows` to the project's groups; all lines are right or nothing is done.

    A group of a person (or an oracle) whose labels are there already with the same values is counted as known, so the
    same file may come any number of times. Other values than the ones that are there are conflicts: they are reported
    and left. Groups are found by `group` and `position`; a `seed` that is given must be the image's.
    """
    try:
        check_open(project, LabellingError)
    except LabellingError as error:
        return Imported(errors=[str(error)])
    answers, spent, whys, scores, result = _checked(project, list(rows))
    if result.errors:
        return result
    try:
        with transaction.atomic():
            for (group, user), answer in answers.items():
                _give(project, group, user, answer, spent[group, user], whys[group, user], result)
            for (group, oracle), verdicts in scores.items():
                _score(group, oracle, verdicts, result)
            if by is not None and result.new:
                audit(project, by, "labels imported", new=result.new, known=result.known)
    except LabellingError as error:
        return Imported(errors=[str(error)])
    return result


def _checked(project: Project, rows: list[tuple[int, dict]]):
    result = Imported()
    names = {row["annotator"] for _line, row in rows if isinstance(row.get("annotator"), str)}
    names = {name for name in names if not texts.BAD.search(name)}  # a database cannot be asked for the others
    people = identity.resolve(project, names)
    groups = {row["group"] for _line, row in rows if type(row.get("group")) is int and 0 < row["group"] < 2**63}
    images: dict[int, dict[int, int]] = {}
    wanted = sorted(groups)
    for start in range(0, len(wanted), 1000):
        found = Generation.objects.filter(group__project=project, group__in=wanted[start : start + 1000])
        for group, position, seed in found.values_list("group", "position", "seed"):
            images.setdefault(group, {})[position] = seed
    answers: dict[tuple, dict[int, bool]] = {}
    spent: dict[tuple, float] = {}  # seconds
    whys: dict[tuple, dict[int, Why]] = {}
    scores: dict[tuple, dict[int, dict]] = {}
    for line, row in rows:
        wrong = _wrong(row, people, images)
        if wrong is None:
            if row.get("annotator"):
                key = (row["group"], people[row["annotator"]])
                place, value = answers.setdefault(key, {}), row["liked"]
                spent[key] = float(row.get("seconds") or 0)
                about = whys.setdefault(key, {})
                if not row["liked"]:
                    about[row["position"]] = _why(row)
            else:
                place = scores.setdefault((row["group"], row["oracle"]), {})
                value = {"liked": row["liked"], "score": row.get("score"), "reason": str(row.get("reason") or "")}
            if place.setdefault(row["position"], value) != value:
                wrong = _("position: image %(position)s of group %(group)s has two values in this file") % {
                    "position": row["position"],
                    "group": row["group"],
                }
        if wrong is not None:
            result.errors.append(_("line %(line)s: %(wrong)s") % {"line": line, "wrong": wrong})
    for (group, who), answer in [*answers.items(), *scores.items()]:
        if lacking := sorted(set(images[group]) - set(answer)):
            result.errors.append(
                _("group %(group)s: %(who)s decided on only part of it; image %(image)s is missing")
                % {"group": group, "who": who, "image": lacking[0]}
            )
    del result.errors[MOST_ERRORS:]
    return answers, spent, whys, scores, result


def _wrong(row: dict, people: dict, images: dict) -> str | None:
    """The first thing that is wrong with a row."""
    try:
        texts.check({name: row.get(name) for name in ("annotator", "oracle", "reason", "score")}, "line")
    except texts.Unstorable as error:
        return str(error)
    for name in NEEDED:
        if row.get(name) is None:
            return _("%(name)s: it is missing") % {"name": name}
    if type(row["group"]) is not int or type(row["position"]) is not int:
        return _("group: group and position are whole numbers")
    if not isinstance(row["liked"], bool):
        return _("liked: true or false")
    annotator, oracle = row.get("annotator"), row.get("oracle")
    if bool(annotator) == bool(oracle):
        return _("annotator: give the annotator's name, or the oracle's")
    if annotator and not (isinstance(annotator, str) and annotator in people):
        return _("annotator: %(annotator)s is not a member of the project and never was; invite them first") % {
            "annotator": repr(annotator)
        }
    if oracle and (not isinstance(oracle, str) or len(oracle) > 40):
        return _("oracle: a name of at most 40 characters")
    if oracle and row.get("score") is not None and not (_number(row["score"]) and 0 <= row["score"] <= 1):
        return _("score: a number from 0 to 1")
    if row.get("seconds") is not None and not (_number(row["seconds"]) and 0 <= row["seconds"] <= 86_400):
        return _("seconds: a number from 0 to 86400")
    try:
        if annotator:
            _why(row)
    except (LabellingError, ValueError) as error:
        return str(error) if isinstance(error, LabellingError) else _("box: it is not JSON")
    if row["group"] not in images:
        return _("group: %(group)s is no group of this project") % {"group": row["group"]}
    if row["position"] not in images[row["group"]]:
        return _("position: group %(group)s has no image %(position)s") % {
            "group": row["group"],
            "position": row["position"],
        }
    if row.get("seed") is not None and row["seed"] != images[row["group"]][row["position"]]:
        return _("seed: it is not the image's; the file belongs to another database")
    return None


def _why(row: dict) -> Why:
    """What the row says of a dislike. Raises LabellingError, and ValueError for a box that is no JSON."""
    box = row.get("box")
    return Why.of(row.get("reason"), json.loads(box) if isinstance(box, str) and box else box or None)


def _number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _give(
    project: Project,
    group: int,
    user: User,
    answer: dict[int, bool],
    seconds: float,
    why: dict[int, Why],
    result: Imported,
) -> None:
    done = GroupDecision.objects.filter(group=group, user=user).first()
    if done is not None:
        plain = {str(k): v for k, v in sorted(answer.items())}
        if done.outcome == Outcome.SUBMITTED and done.answer == plain:
            result.known += 1
        else:
            result.conflicts.append(
                _("group %(group)s: %(username)s decided otherwise since; left as it is")
                % {"group": group, "username": user.username}
            )
        return
    key = f"import-{group}"
    if UndoneDecision.objects.filter(user=user, idempotency_key=key).exists():
        result.conflicts.append(
            _("group %(group)s: %(username)s took the imported answer back; left as it is")
            % {"group": group, "username": user.username}
        )
        return
    give(user, group, lasts=False)  # wherever that was
    decisions.submit_group(user, project, group, answer, seconds=seconds, idempotency_key=key, why=why)
    result.new += 1


def _score(group: int, oracle: str, verdicts: dict[int, dict], result: Imported) -> None:
    there = {
        v.generation.position: (v.liked, v.score)
        for v in Label.objects.filter(generation__group=group, oracle=oracle).select_related("generation")
    }
    if there == {position: (v["liked"], v["score"]) for position, v in verdicts.items()}:
        result.known += 1
    elif there:
        result.conflicts.append(
            _("group %(group)s: %(oracle)s scored otherwise since; left as it is") % {"group": group, "oracle": oracle}
        )
    else:
        scoring.record_oracle_labels(group, oracle, [verdicts[p] for p in sorted(verdicts)])
        result.new += 1
