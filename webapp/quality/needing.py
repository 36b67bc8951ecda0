"""Groups that need one person more: the rule of `webapp.quality.asking` in queries."""

from __future__ import annotations

from django.db.models import Exists, F, OuterRef, Q

from webapp.quality.asking import Asking
from webapp.quality.models import Consensus


def more(asking: Asking) -> Q:
    """Of groups with the annotation `taken`, their answers and those on the way: `taken < asking.wanted(decisions, …)`."""
    return more_by(asking.ranged, asking.tie_break, least=asking.least, most=asking.most, sure=asking.sure)


def more_by(ranged: bool, tie_break: bool, *, least: int, most: int, sure: float) -> Q:
    """The same with the numbers apart from what decides the query's form (`webapp.lib.prepared`). Without a range only
    `least` is in it."""
    found = Q(taken__lt=least)
    settled = Consensus.objects.filter(group=OuterRef("pk"))
    if ranged:
        asked_on = Q(decisions__gte=least, decisions__lt=most, taken=F("decisions"))
        found |= Q(~Exists(settled.filter(certainty__gte=sure)), asked_on)
    if tie_break:
        last = Q(decisions__gte=most, taken__lte=most) if ranged else Q(taken__lte=least)
        found |= Q(Exists(settled.filter(tie=True)), last)
    return found
