"""Reads of rounds and versions: what a round found in its labels, lineage, and scores with their intervals."""

from __future__ import annotations

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
