"""Reads of rounds and versions: what a round found in its labels, lineage, and scores with their intervals."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from django.db.models import Max, Min
from django.utils.translation import gettext as _

from common.settings import TDMR1Settings, label_and_help
from webapp.campaigns.models import Project
from webapp.quality.counts import like_rates
from webapp.rounds.lineage import Drawing, draw
from webapp.rounds.models import TrainingRound
from webapp.rounds.sequential import wilson

MOST = 200  # versions of a drawing and of a chart
SHARPENS = 0.7  # share of labelled pairs that the base ranks right by itself, from which on a round mostly sharpens


def first_look(training: TrainingRound) -> dict:
    """What the trainer said of the round's labels before it learned from them: how many groups it leaves out, the `silent`
    ones without signal and the `damaged` ones, whose files cannot be read; and as `base` what the base knows of the labels
    already, `percent` of the labelled pairs that its own error ranks right and whether the round `sharpens` it for the most
    part. Empty before the first update, and where an oracle scores."""
    first = training.metrics.order_by("step").first()
    said = first.values if first else {}
    found = {name: round(said[f"groups_{name}"]) for name in ("silent", "damaged") if said.get(f"groups_{name}")}
    if (share := said.get("base_ranks")) is not None:
        found["base"] = {"percent": round(100 * share), "sharpens": share > SHARPENS}
    return found


@dataclass(frozen=True)
class Made:
    """What a round was made from and what it cost: labels by who gave them, people, settings that differ from the trainer's
    defaults as (name in words, name, value, default), seconds by stage, and images of the student that it trained on."""

    labels: dict[str, int]
    people: int
    settings: list[tuple[str, str, object, object]]
    stages: list[tuple[str, float]]
    images: int
    own: int = 0  # groups of own images with signal

    @property
    def seconds(self) -> float:
        """From its start to its end."""
        return sum(seconds for _name, seconds in self.stages)


def made(training: TrainingRound) -> Made:
    """Of a round that has ended."""
    defaults, changed = TDMR1Settings().to_json(), []
    for field in dataclasses.fields(TDMR1Settings):
        value = training.settings.get(field.name, defaults[field.name])
        if value != defaults[field.name]:
            label, _help = label_and_help(_(field.metadata["help"]))
            changed.append((label, field.name, value, defaults[field.name]))
    known = training.made_from
    images = training.step * training.settings.get("student_batch", 0)
    return Made(
        known.get("labels", {}), known.get("people", 0), changed, _stages(training), images, known.get("own", 0)
    )


def _stages(training: TrainingRound) -> list[tuple[str, float]]:
    times = training.metrics.aggregate(first=Min("created_at"), last=Max("created_at"))
    if times["first"] is None or training.finished_at is None:
        return []
    marks = [training.created_at, times["first"], times["last"], training.finished_at]
    names = [_("waiting, loading and the first validation"), _("updates and validations"), _("saving the version")]
    return [(name, (b - a).total_seconds()) for name, a, b in zip(names, marks, marks[1:], strict=False)]


def lineage(project: Project) -> Drawing:
    """The drawing of the newest versions."""
    rows = project.versions.order_by("-number").values_list("number", "parent__number", "status")[:MOST]
    return draw(list(rows), project.active_version.number if project.active_version else None)


def scores(project: Project) -> list[dict]:
    """By version, oldest first: each score as `{value, low, high}` (95%), with people's like rate among them as `likes`.

    Scores are means over the validation images of the round that made the version; the first version's are those its
    children's rounds began with. Wilson's interval is right for shares and wide for means of scores in 0..1.
    """
    found: dict[int, dict] = {}
    made = {r.result_version_id: r for r in project.rounds.filter(result_version__isnull=False)}
    before = {}
    for training in made.values():
        before.setdefault(training.base_version_id, training)
    versions = list(project.versions.order_by("-number")[:MOST])
    for version in reversed(versions):
        training, values = made.get(version.pk), version.scores
        if not values and version.pk in before:
            training, values = before[version.pk], before[version.pk].scores_before
        images = (training.settings.get("validation_images") if training else None) or 0
        found[version.number] = {
            name: _interval(value, images) for name, value in values.items() if 0 <= value <= 1 and images
        }
    for row in like_rates(project):
        if row["version"] in found:
            found[row["version"]]["likes"] = _interval(row["rate"], row["labels"])
    return [{"version": number, "scores": values} for number, values in found.items()]


def _interval(value: float, count: int) -> dict:
    low, high = wilson(value * count, count)
    return {"value": value, "low": low, "high": high}
