"""A project in which every field that somebody may write holds a text that names the field."""

from collections.abc import Callable

from django.utils import timezone

from tests.webapp import acting
from webapp.api.models import ApiToken, Delivery, Webhook
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Role
from webapp.labelling.models import Example, Flag, Group, GroupDecision, Label
from webapp.operations.services import beat
from webapp.quality.models import GoldGroup, Overrule
from webapp.quality.services import settle
from webapp.raters.models import Study
from webapp.rounds.models import Pair, TrainingRound, Trial

NOT_PAGES = {
    "image",
    "task-image",
    "practice-image",
    "example-image",
    "pair-image",
    "trial-image",
    "round-grid",
    "download-lora",
    "download-package",
    "export-download",
    "gallery-download",
    "metrics",
    "service-worker",
    "app-manifest",
}
FIELDS = "user project guidelines prompt metadata group round flag skip label oracle word example token webhook".split()
FIELDS += "delivery audit pair trial consent study".split()


def everywhere(project, ready, person, boss, mark: Callable[[str], str]):
    """Write `mark(field)` into every field of the project of the fixture `address`."""
    mallory = person(mark("user"), Role.REVIEWER)
    project.name, project.guidelines, project.consent = mark("project"), mark("guidelines"), mark("consent")
    project.save()
    seen, failed, flagged = Group.objects.get(), *ready(2)[:2]  # one more stands in for the one that somebody has
    prompt = seen.prompt
    prompt.text, prompt.metadata = mark("prompt"), {"tag": mark("metadata")}
    prompt.save()
    images = list(seen.generations.all())
    acting.submit_group(mallory, project, seen.pk, {i: i % 2 == 0 for i in range(4)}, seconds=1, idempotency_key="k")
    Label.objects.create(generation=images[0], oracle=mark("oracle")[:40], liked=True, reason=mark("label"))
    Overrule.objects.create(generation=images[0], reviewer=mallory, liked=False, reason=mark("word"))
    GroupDecision.objects.create(
        group=seen, user=boss, outcome="skipped", reason=f"other: {mark('skip')}", idempotency_key="s"
    )
    settle(seen)
    GoldGroup.objects.create(project=project, group=seen, kind="gold", answer={"0": True})
    Example.objects.create(generation=images[1], good=True, note=mark("example"))
    Flag.objects.create(group=flagged, user=mallory, kind="other", note=mark("flag"))
    Group.objects.filter(pk=flagged.pk).update(state="flagged")
    Group.objects.filter(pk=failed.pk).update(state="failed", error=mark("group"))
    TrainingRound.objects.update(error=mark("round"))
    Pair.objects.filter(pk=Pair.objects.first().pk).update(state="failed", error=mark("pair"))
    by = {"created_by": boss, "token_hash": "h", "completion_code": "C", "expires_at": timezone.now()}
    Study.objects.create(project=project, name=mark("study"), **by)
    Trial.objects.update(prompt=mark("trial"), error=mark("trial"))
    ApiToken.objects.create(project=project, user=boss, name=mark("token"), token_hash="x", scopes=["read"])
    webhook = Webhook.objects.create(project=project, url=f"https://example.org/{mark('webhook')}", events=[])
    Delivery.objects.create(
        webhook=webhook, key="k", event="round.finished", payload={}, next_at=timezone.now(), error=mark("delivery")
    )
    audit(project, mallory, "project changed", name=mark("audit"))
    beat(mark("worker"), timezone.now())
    return project
