"""The REST API: the same services and queries as the pages, for programs. `/api/v1/docs` shows and tries it.

Every list is a page by id (`after`, `limit`), so its cost does not grow with how far one has read.
"""

from __future__ import annotations

from typing import Literal

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from ninja import File, Path, Query, Router, Status
from ninja.errors import HttpError
from ninja.files import UploadedFile

from webapp.accounts.permissions import Action
from webapp.api import comparisons, contract, images, inputs, people, prompts, services
from webapp.api import schemas as s
from webapp.api.auth import ANY, TokenThrottle, may_administer, may_label, may_read
from webapp.api.contract import After, Limit, page
from webapp.campaigns import services as campaigns
from webapp.campaigns import sizes
from webapp.campaigns.models import Project, Split
from webapp.exports import identity, imports
from webapp.exports.formats import FORMATS
from webapp.exports.forms import CONTAINERS, ExportForm
from webapp.exports.views import TYPES, export_response
from webapp.labelling import decisions, errors, history, leases, queries, views, why
from webapp.labelling.models import Generation, Group, GroupState, LabelEvent
from webapp.lib import bounds, media, paths
from webapp.lib.middleware import api_error
from webapp.quality import counts
from webapp.quality.signal import GROUP_HAS_SIGNAL
from webapp.rounds import comparisons as blind_tests
from webapp.rounds import forecasts, trials
from webapp.rounds import services as rounds
from webapp.rounds.models import ModelVersion, TrainingRound, Trial

api = contract.Api(
    parser=contract.TextParser(),
    title="Likestep",
    version="1",
    description="Groups, likes and dislikes, versions and rounds of a project. Tokens are made on a project's API page.",
    urls_namespace="api",
    docs_decorator=contract.for_members,
    throttle=[TokenThrottle()],
)
contract.add_handlers(api)
router = Router()
FORMATS_HELP = " ".join(f"`{f.name}`: {f.help}" for f in FORMATS.values())
CONTAINERS_HELP = "Without one the format's usual file."
WEBP = contract.files("image/webp")
EXPORTED = contract.files(*TYPES.values(), "application/zip")


@api.exception_handler(errors.LabellingError)
def _labelling_refused(request, error):
    return api_error(error.status, str(error))


@api.exception_handler(services.ApiError)
@api.exception_handler(campaigns.CampaignError)
@api.exception_handler(rounds.RoundError)
@api.exception_handler(trials.TrialError)
@api.exception_handler(blind_tests.ComparisonError)
def _refused(request, error):
    return api_error(400, str(error))


# ---------------------------------------------------------------- project


@api.get("/me", auth=ANY, response=s.TokenOut, tags=["token"])
def me(request):
    """Whose token this is and what it may do."""
    token = request.auth
    return {
        "project": token.project.slug,
        "user": token.user.username,
        "name": token.name,
        "scopes": token.scopes,
    }


@router.get("/", auth=may_read(Action.SEE), response=s.ProjectOut, tags=["project"])
def project(request, slug: Path[str]):
    """The project's settings and where its queue stands."""
    found = request.auth.project
    measured = found.qualities.first()
    return {
        **{name: getattr(found, name) for name in s.ProjectOut.model_fields if hasattr(found, name)},
        "sizes": sizes.of_project(found),
        "active_version": found.active_version.number if found.active_version else None,
        "archived": found.archived_at is not None,
        "groups": counts.queue_counts(found),
        "labelled_groups": counts.labelled_count(found),
        "groups_with_signal": counts.groups_with_signal_since(found, None),
        "alpha": measured.alpha if measured else None,
        "labels_to_next_round": forecasts.next_round(found).more,
    }


# ---------------------------------------------------------------- groups and labels


def _image(request: HttpRequest, slug: str, image: Generation) -> dict:
    return {
        "id": image.pk,
        "position": image.position,
        "seed": image.seed,
        "inclusion": image.inclusion,
        "width": image.width,
        "height": image.height,
        "url": request.build_absolute_uri(reverse("api:image", args=[slug, image.pk])),
    }


def _task(request: HttpRequest, slug: str, group: Group) -> dict:
    """As `views.group_json`: what a group is to somebody who is to decide on it."""

    def address(image: Generation) -> str:
        return request.build_absolute_uri(reverse("api:task-image", args=[slug, group.task, image.position]))

    images = group.generations.all()
    own = request.build_absolute_uri(reverse("api:task-input", args=[slug, group.task])) if group.input_image else None
    return {
        "id": group.task,
        "prompt": group.prompt.text,
        "input": own,
        "images": [{"position": g.position, "width": g.width, "height": g.height, "url": address(g)} for g in images],
    }


def _group(request: HttpRequest, slug: str, group: Group) -> dict:
    settled = getattr(group, "consensus", None)
    return {
        "id": group.pk,
        "prompt": group.prompt.text,
        "version": None if group.is_own else group.version.number,
        "state": group.state,
        "created_at": group.created_at,
        "rewards": settled.rewards if settled else None,
        "input_image": group.input_image,
        "images": [_image(request, slug, g) for g in group.generations.all()],
    }


def _groups(request):
    rows = Group.objects.filter(project=request.auth.project)
    return rows.select_related("prompt", "version", "consensus").prefetch_related("generations")


@router.get("/groups", auth=may_read(Action.SEE), response=s.Page[s.GroupOut], tags=["groups"])
def groups(
    request,
    slug: Path[str],
    state: GroupState | None = None,
    version: int | None = Query(None, **bounds.NUMBER.limits),
    signal: bool | None = None,
    after: int = After,
    limit: int = Limit,
):
    """The groups, filtered by state, version number, or whether their rewards differ."""
    rows = _groups(request)
    if state is not None:
        rows = rows.filter(state=state)
    if version is not None:
        rows = rows.filter(version__number=version)
    if signal is not None:
        rows = rows.filter(GROUP_HAS_SIGNAL) if signal else rows.filter(consensus__signal=False)
    return page(rows, after, limit, lambda g: _group(request, slug, g))


@router.get("/groups/{int:group_id}", auth=may_read(Action.SEE), response=s.GroupOut, tags=["groups"])
def group(request, slug: Path[str], group_id: int):
    """One group."""
    return _group(request, slug, get_object_or_404(_groups(request), pk=group_id))


@router.get("/images/{int:image_id}", auth=may_read(Action.SEE), url_name="image", tags=["groups"], openapi_extra=WEBP)
def image(request, slug: Path[str], image_id: int):
    """An image's bytes (WebP)."""
    return views.image_response(get_object_or_404(Generation, pk=image_id, group__project=request.auth.project))


@router.get("/labels", auth=may_read(Action.EXPORT), response=s.Page[s.LabelOut], tags=["groups"])
def labels(
    request,
    slug: Path[str],
    annotator: str | None = Query(None, max_length=bounds.WORD),
    after: int = After,
    limit: int = Limit,
):
    """What became of labels since `after`, in the order it was committed: nothing comes later with a lower id. Of the
    entries of an image and somebody the newest one counts; `liked` null: their label is gone. See docs/api.md."""
    project = request.auth.project
    by = [user.pk for user in identity.resolve(project, [annotator]).values()] if annotator is not None else None
    found, following = history.changes(project, after=after, limit=limit, annotators=by)
    return {"items": [_change(project, event) for event in found], "next": following}


def _change(project: Project, event: LabelEvent) -> dict:
    return {
        "id": event.number,
        "change": event.change,
        "group": event.generation.group_id,
        "position": event.generation.position,
        "annotator": identity.pseudonym(project, event.annotator_id) if event.annotator_id else None,
        "oracle": event.oracle or None,
        "liked": event.liked,
        "score": event.score,
        "reason": event.reason or None,
        "box": event.box,
        "created_at": event.created_at,
    }


# ---------------------------------------------------------------- labelling


@router.post("/tasks", auth=may_label(Action.LABEL), response=s.Page[s.TaskOut], tags=["labelling"])
def tasks(request, slug: Path[str], limit: int = Query(1, ge=1, le=4)):
    """Groups leased to the token's owner, for ten minutes since they last asked."""
    given = leases.lease_groups(request.auth.user, request.auth.project, limit)
    return {"items": [_task(request, slug, group) for group in given]}


@router.get(
    "/tasks/{slug:task}/images/{int:position}",
    auth=may_label(Action.LABEL),
    url_name="task-image",
    tags=["labelling"],
    openapi_extra=WEBP,
)
def task_image(request, slug: Path[str], task: Path[str], position: int):
    """The bytes (WebP) of an image of a group that the token's owner was given."""
    return views.image_response(queries.task_image(request.auth.user, request.auth.project, task, position))


@router.post(
    "/tasks/{slug:task}/decision",
    auth=may_label(Action.LABEL),
    response={200: s.Saved, 409: s.Error},
    tags=["labelling"],
)
def decide(request, slug: Path[str], task: Path[str], body: s.DecisionIn):
    """Like or dislike every image of a group, and say why if wanted. The same key with the same labels may be sent any
    number of times."""
    user, project = request.auth.user, request.auth.project
    group_id = leases.group_of(user, project, task)
    about = why.read({str(k): v.dict() for k, v in body.why.items()}, body.labels)
    decision = decisions.submit_group(
        user, project, group_id, body.labels, seconds=body.seconds, idempotency_key=body.key, why=about
    )
    return {"task": task, "outcome": decision.outcome}


@router.post(
    "/tasks/{slug:task}/skip",
    auth=may_label(Action.LABEL),
    response={200: s.Saved, 409: s.Error},
    tags=["labelling"],
)
def skip(request, slug: Path[str], task: Path[str], body: s.SkipIn):
    """Leave a group to somebody else."""
    user, project = request.auth.user, request.auth.project
    group_id = leases.group_of(user, project, task)
    decision = decisions.skip_group(user, project, group_id, reason=body.reason, idempotency_key=body.key)
    return {"task": task, "outcome": decision.outcome}


# ---------------------------------------------------------------- versions and rounds


def _version(v: ModelVersion) -> dict:
    return {
        "number": v.number,
        "parent": v.parent.number if v.parent else None,
        "status": v.status,
        "sha256": v.sha256,
        "scores": v.scores,
        "created_at": v.created_at,
    }


def _round(r: TrainingRound) -> dict:
    names = ("number", "state", "phase", "step", "total", "scores_before", "scores_after", "error", "alarm")
    forecast = getattr(r, "forecast", None)
    return {
        **{name: getattr(r, name) for name in names},
        "labels_needed": forecast and forecast.needed,
        "labels_had": forecast and forecast.had,
        "worth_it": forecast and forecast.worth,
        "created_at": r.created_at,
        "finished_at": r.finished_at,
        "base_version": r.base_version.number,
        "result_version": r.result_version.number if r.result_version else None,
    }


@router.get("/versions", auth=may_read(Action.SEE), response=s.Page[s.VersionOut], tags=["versions"])
def versions(request, slug: Path[str], after: int = After, limit: int = Limit):
    """The versions by number."""
    return page(request.auth.project.versions.select_related("parent"), after, limit, _version, key="number")


@router.post(
    "/versions/{int:number}/publish",
    auth=may_administer(Action.VERSIONS),
    response=s.VersionOut,
    tags=["versions"],
)
def publish(request, slug: Path[str], number: int):
    """Make a version the one that generates; an older one too (roll back)."""
    found = get_object_or_404(request.auth.project.versions, number=number)
    return _version(rounds.publish_version(request.auth.project, found.pk, by=request.auth.user))


@router.get("/rounds", auth=may_read(Action.SEE), response=s.Page[s.RoundOut], tags=["rounds"])
def list_rounds(request, slug: Path[str], after: int = After, limit: int = Limit):
    """The rounds by number."""
    rows = request.auth.project.rounds.select_related("base_version", "result_version", "forecast")
    return page(rows, after, limit, _round, key="number")


@router.post("/rounds", auth=may_administer(Action.ROUNDS), response=s.RoundOut, tags=["rounds"])
def start_round(request, slug: Path[str], body: s.RoundIn):
    """Start a round; the same key returns the round it started."""
    return _round(
        rounds.start_round(request.auth.project, body.settings, idempotency_key=body.key, user=request.auth.user)
    )


@router.get("/rounds/{int:number}", auth=may_read(Action.SEE), response=s.RoundOut, tags=["rounds"])
def get_round(request, slug: Path[str], number: int):
    """One round and how far it is."""
    return _round(get_object_or_404(request.auth.project.rounds, number=number))


@router.post("/rounds/{int:number}/cancel", auth=may_administer(Action.ROUNDS), response=s.RoundOut, tags=["rounds"])
def cancel_round(request, slug: Path[str], number: int):
    """Ask a round to stop."""
    return _round(rounds.cancel_round(get_object_or_404(request.auth.project.rounds, number=number).pk))


# ---------------------------------------------------------------- trials


def _trial(request: HttpRequest, slug: str, trial: Trial) -> dict:
    def address(column: int, row: int) -> str:
        return request.build_absolute_uri(reverse("api:trial-image", args=[slug, trial.pk, column, row]))

    rows = range(len(trial.seeds))
    return {
        **{name: getattr(trial, name) for name in ("prompt", "state", "seeds", "error", "created_at")},
        "id": trial.pk,
        "size": trial.image_size,
        "sides": [
            {**side, "images": [address(column, row) for row in rows] if column < trial.made else []}
            for column, side in enumerate(trial.sides)
        ],
        "ahead": trials.ahead(trial) if trial.state in trials.PENDING else 0,
    }


@router.get("/trials", auth=may_read(Action.SEE), response=s.Page[s.TrialOut], tags=["trials"], url_name="trials")
def list_trials(request, slug: Path[str], after: int = After, limit: int = Limit):
    """The trials that are kept, oldest first."""
    return page(request.auth.project.trials.all(), after, limit, lambda t: _trial(request, slug, t))


@router.post("/trials", auth=may_administer(Action.VERSIONS), response=s.TrialOut, tags=["trials"], url_name="trials")
def start_trial(request, slug: Path[str], body: s.TrialIn):
    """Images of any prompt by versions, and the base, from the same noise; ask for it again until it is ready."""
    base = (body.base.steps, body.base.guidance) if body.base else None
    about = {"versions": body.versions, "base": base, "seeds": body.seeds, "size": body.size}
    made = trials.start(request.auth.project, body.prompt, **about, by=request.auth.user)
    return _trial(request, slug, made)


@router.get("/trials/{int:trial_id}", auth=may_read(Action.SEE), response=s.TrialOut, tags=["trials"])
def trial(request, slug: Path[str], trial_id: int):
    """One trial and how far it is."""
    return _trial(request, slug, get_object_or_404(request.auth.project.trials, pk=trial_id))


@router.post(
    "/trials/{int:trial_id}/cancel", auth=may_administer(Action.VERSIONS), response=s.TrialOut, tags=["trials"]
)
def cancel_trial(request, slug: Path[str], trial_id: int):
    """End a trial that is not made yet."""
    found = trials.cancel(request.auth.project, trial_id)
    if found is None:
        raise HttpError(404, "trial: there is none of this number")
    return _trial(request, slug, found)


@router.get(
    "/trials/{int:trial_id}/images/{int:column}/{int:row}",
    auth=may_read(Action.SEE),
    url_name="trial-image",
    tags=["trials"],
    openapi_extra=WEBP,
)
def trial_image(request, slug: Path[str], trial_id: int, column: int, row: int):
    """The bytes (WebP) of the image of a side, from 0, and a seed, from 0."""
    found = get_object_or_404(request.auth.project.trials, pk=trial_id, made__gt=column)
    file = paths.trial_image(found.project_id, found.pk, column, row)
    return media.picture(file, cache="private, max-age=604800, immutable", may_redirect=False)


# ---------------------------------------------------------------- out and in


@router.get("/export", auth=may_read(Action.EXPORT), tags=["exports"], openapi_extra=EXPORTED)
def export(
    request,
    slug: Path[str],
    format: Literal[tuple(FORMATS)] = Query("labels", description=FORMATS_HELP),
    container: Literal["", *CONTAINERS] = Query("", description=CONTAINERS_HELP),
    version: str = Query("", max_length=bounds.WORD),
    split: Split | Literal[""] = "",
    since: str = Query("", max_length=bounds.WORD),
    until: str = Query("", max_length=bounds.WORD),
    annotator: str = Query("", max_length=bounds.WORD),
    signal: bool = False,
) -> HttpResponse:
    """A streamed export; docs/data-formats.md has formats, containers and columns. Days are YYYY-MM-DD."""
    chosen = {
        "format": format,
        "container": container,
        "version": version,
        "split": split,
        "since": since,
        "until": until,
        "annotator": annotator,
        "signal": signal,
    }
    known = identity.resolve(request.auth.project, [annotator] if annotator else [])
    if annotator in known:  # by name or by id
        chosen["annotator"] = identity.pseudonym(request.auth.project, known[annotator].pk)
    form = ExportForm(chosen, project=request.auth.project)
    if not form.is_valid():
        name, errors = next(iter(form.errors.items()))
        raise HttpError(400, f"{name}: {errors[0]}")
    return export_response(request, request.auth.project, form, image="api:image")


@router.post(
    "/import", auth=may_administer(Action.IMPORT), response={200: s.ImportedOut, 400: s.ImportRefused}, tags=["exports"]
)
def import_labels(request, slug: Path[str], file: UploadedFile = File(...)):  # noqa: B008 - ninja's way to declare it
    """Labels of a `labels` export back in: every line or none."""
    rows, errors = imports.read_rows(file.read(settings.LIKESTEP_IMPORT_LIMIT + 1), file.name)
    done = imports.import_labels(request.auth.project, rows, by=request.auth.user) if not errors else None
    if errors := errors or done.errors:
        return Status(400, {"detail": "; ".join(errors[: contract.MOST_ERRORS]), "errors": errors})
    return Status(200, done.__dict__)


# ---------------------------------------------------------------- webhooks


def _webhook(w) -> dict:
    return {"id": w.pk, "url": w.url, "events": w.events, "every": w.every, "active": w.active}


@router.get("/webhooks", auth=may_administer(Action.HOOKS), response=s.Page[s.WebhookOut], tags=["webhooks"])
def webhooks(request, slug: Path[str], after: int = After, limit: int = Limit):
    """The webhooks."""
    return page(request.auth.project.webhooks.all(), after, limit, _webhook)


@router.post("/webhooks", auth=may_administer(Action.HOOKS), response=s.WebhookMade, tags=["webhooks"])
def create_webhook(request, slug: Path[str], body: s.WebhookIn):
    """Make a webhook; its secret is in the answer and nowhere else."""
    made = services.create_webhook(
        request.auth.project, body.url, list(body.events), request.auth.user, every=body.every
    )
    return {**_webhook(made), "secret": made.secret}


@router.delete(
    "/webhooks/{int:webhook_id}",
    auth=may_administer(Action.HOOKS),
    response={204: None},
    tags=["webhooks"],
)
def delete_webhook(request, slug: Path[str], webhook_id: int):
    """Remove a webhook."""
    if not services.delete_webhook(request.auth.project, webhook_id, request.auth.user):
        raise HttpError(404, "webhook: there is none of this number")
    return Status(204, None)


@router.get(
    "/webhooks/{int:webhook_id}/deliveries",
    auth=may_administer(Action.HOOKS),
    response=s.Page[s.DeliveryOut],
    tags=["webhooks"],
)
def deliveries(request, slug: Path[str], webhook_id: int, after: int = After, limit: int = Limit):
    """What was sent and how it went, oldest first."""
    found = get_object_or_404(request.auth.project.webhooks, pk=webhook_id)
    names = [name for name in s.DeliveryOut.model_fields if name != "id"]
    return page(
        found.deliveries.all(), after, limit, lambda d: {"id": d.pk, **{name: getattr(d, name) for name in names}}
    )


for part in (router, prompts.router, inputs.router, people.router, images.router, comparisons.router):
    api.add_router("/projects/{slug:slug}", part)
