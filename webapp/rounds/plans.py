"""Before a round is started: presets, and the time and memory that it takes on the machine that trains, or what makes it
fit onto a card."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from common.settings import MOST_UPDATES
from webapp.campaigns import sizes
from webapp.campaigns.models import Project
from webapp.lib.dispatch import enqueue
from webapp.rounds.models import RoundPlan, RoundState, TrainingRound

CARDS = ("12GB", "16GB", "24GB", "80GB")
WORKER = "worker"  # the card that the worker reports
KEPT = 50  # plans of a project
AGAIN = timedelta(seconds=60)  # after which a plan that did not come is asked for once more
QUICK, LONG = 1 / 6, 4  # of the usual updates
FEWEST = 4
LOOK = 32  # validation images of a quick look


@dataclass(frozen=True)
class Preset:
    """A round in words, and the settings of it that differ from the project's own."""

    name: str
    label: str | Promise
    help: str | Promise
    changes: dict


def presets(usual: dict) -> list[Preset]:
    """The presets on top of a project's usual settings."""
    updates = usual["updates"]
    few = max(FEWEST, round(updates * QUICK))
    quick = {"updates": few, "validate_every": few, "validation_images": min(LOOK, usual["validation_images"])}
    return [
        Preset("quick", _("Quick look"), _("Shows that everything works, and changes little."), quick),
        Preset("normal", _("Normal"), _("As the project's settings say."), {}),
        Preset(
            "long",
            _("Long"),
            _("Moves further: for many labels, and a machine with time. The alarm watches."),
            {"updates": min(MOST_UPDATES, updates * LONG)},
        ),
    ]


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes of a round; `measured`: the time is scaled from the project's last round instead of computed."""

    seconds: float
    measured: bool
    bytes: float
    has: float

    @property
    def gigabytes(self) -> tuple[float, float]:
        """What is needed and what there is, in the billions of bytes that a card is named by."""
        return self.bytes / 1e9, self.has / 1e9

    @property
    def fits(self) -> bool:
        """Whether the machine has the memory."""
        return self.bytes <= self.has


@transaction.atomic
def ask(project: Project, settings: dict, card: str = "") -> RoundPlan:
    """The plan of these (checked) settings, asked for unless it is there; with a `card` of `CARDS`, or `WORKER`, of what
    makes them fit into it. One that still waits for other settings is forgotten: only the newest question of a project,
    and the newest about a card, is worked on."""
    now = timezone.now()
    plan, new = RoundPlan.objects.get_or_create(
        project=project,
        digest=_digest(project, settings, card),
        defaults={"settings": settings, "card": card, "asked_at": now},
    )
    if new:
        waiting = project.plans.filter(values__isnull=True).exclude(pk=plan.pk)
        (waiting.exclude(card="") if card else waiting.filter(card="")).delete()
        old = project.plans.values_list("pk", flat=True)[KEPT:]
        RoundPlan.objects.filter(pk__in=list(old)).delete()
    elif plan.values is None and plan.asked_at < now - AGAIN:
        plan.asked_at, plan.error, new = now, "", True
        plan.save()
    if new:
        enqueue("plan_round", plan.pk)
    return plan


def _digest(project: Project, settings: dict, card: str = "") -> str:
    memory = {} if card else project.round_memory  # a card's question begins at what the machine is set to
    size = sizes.largest_of(project)
    text = json.dumps([project.model_dir, settings, memory, card, *([size] if size else [])], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def wanted(plan_id: int) -> RoundPlan | None:
    """The plan for a worker; None when nobody waits for it any more."""
    return RoundPlan.objects.filter(pk=plan_id, values__isnull=True, error="").select_related("project").first()


def keep(plan_id: int, values: dict | None, error: str = "") -> None:
    """What the worker found."""
    RoundPlan.objects.filter(pk=plan_id).update(values=values, error=error[:500])


def estimate(plan: RoundPlan) -> Estimate | None:
    """What a plan says; None until it is known. The time of the project's last round counts more than a computed one: it is
    scaled by the work of both."""
    if plan.values is None:
        return None
    found = plan.values
    if plan.card:
        return Estimate(found["seconds"], False, found["bytes"], found["has"])
    last = plan.project.rounds.filter(state=RoundState.DONE, finished_at__isnull=False, alarm="").first()
    seconds = _scaled(plan, last) if last else None
    return Estimate(seconds or found["seconds"], seconds is not None, found["bytes"], found["has"])


def _scaled(plan: RoundPlan, last: TrainingRound) -> float | None:
    began = last.metrics.order_by("step").values_list("created_at", "step").first()
    if began is None or last.step <= began[1]:
        return None
    took = (last.finished_at - began[0]).total_seconds() * last.step / (last.step - began[1])
    known = plan.project.plans.filter(digest=_digest(plan.project, last.settings), values__isnull=False).first()
    if known is not None and known.values["flops"]:
        return took * plan.values["flops"] / known.values["flops"]
    return took * plan.settings["updates"] / last.total if last.total else None
