"""What a project's rounds save memory by: in words, and the choice of it. `plans` has what makes a round fit."""

from __future__ import annotations

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webapp.campaigns.models import Project
from webapp.campaigns.services import update_project
from webapp.rounds.services import RoundError

AUTO, MACHINE = "auto", "machine"  # choices beside a plan's options: the worker finds them, or it is as it is set up


def words(options: dict) -> list[str]:
    """Each option in a few words, in the order of the ladder."""
    said = []
    if options.get("auto"):
        said.append(_("what the worker finds to fit when a round begins"))
    if options.get("half"):
        said.append(_("frozen parts in bf16"))
    if options.get("text_encoders") in ("free", "offload"):
        said.append(_("text encoders away while they are not used"))
    if n := options.get("vae_batch"):
        said.append(ngettext("%(n)s image decoded at once", "%(n)s images decoded at once", n) % {"n": n})
    if n := options.get("micro_batch"):
        said.append(ngettext("%(n)s image a pass", "%(n)s images a pass", n) % {"n": n})
    if options.get("checkpointing"):
        said.append(_("blocks computed again for their gradient"))
    if options.get("vae_offload"):
        said.append(_("the image decoder away while it is not used"))
    if options.get("weights", "none") != "none":
        said.append(_("weights as %(kind)s codes") % {"kind": options["weights"]})
    if n := options.get("streamed"):
        said.append(ngettext("%(n)s block on the card at once", "%(n)s blocks on the card at once", n) % {"n": n})
    if options.get("vae_tiling"):
        said.append(_("images decoded in tiles"))
    return said


def choose(project: Project, by, *, choice: str = "", plan: str = "") -> dict:
    """Take what a plan of the project for a card came to, by its id, or `AUTO` or `MACHINE`; returns the options. Raises
    RoundError when there is no such plan."""
    if choice in (AUTO, MACHINE):
        options = {"auto": True} if choice == AUTO else {}
    else:
        found = None
        if plan.isascii() and plan.isdigit() and len(plan) < 19:
            found = project.plans.exclude(card="").filter(pk=int(plan), values__isnull=False).first()
        if found is None or found.values["options"] is None:
            raise RoundError(_("plan: it is not there any more; choose the card once more"))
        options = found.values["options"]
    update_project(project, by, round_memory=options)
    project.round_memory = options
    return options
