"""The annotate page and its JSON endpoints."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import check_for_language, ngettext
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from common import places
from webapp.accounts.permissions import Action, may, member
from webapp.campaigns.models import Project
from webapp.labelling import decisions, errors, following, keys, leases, pictures, queries, why
from webapp.labelling.generation import report_damaged
from webapp.labelling.guidelines import add_example, remove_example
from webapp.labelling.models import FlagKind, Generation, Group, SkipReason
from webapp.labelling.preferences import save_keys
from webapp.labelling.waiting import why_none
from webapp.lib import bounds, media, options, paths, storage, texts
from webapp.raters import gate, practice, studies


def group_json(group: Group) -> dict:
    """A group as the page needs it. An annotator learns nothing of it that another group would not tell as well: no
    number, version, or address that grows with time."""
    images = reverse("task-image", args=[group.project.slug, group.task, 0]).removesuffix("0.webp")
    return {
        "group": group.task,
        "prompt": group.prompt.text,
        "input": reverse("task-input", args=[group.project.slug, group.task]) if group.input_image else None,
        "images": [
            {
                "position": g.position,
                "url": f"{images}{g.position}.webp",
                "width": g.width,
                "height": g.height,
            }
            for g in group.generations.all()
        ],
    }


@require_GET
@member(Action.LABEL)
def annotate(request: HttpRequest, project: Project) -> HttpResponse:
    """The page; its script asks for groups. Who has to agree or practise first, or did all they may, is sent there."""
    if stop := gate.find_stop(request.user, project):
        return redirect(stop.page, project.slug)
    chosen = queries.preferences(request.user)
    mine = keys.merged(chosen.keys)
    page = {"keys": mine if chosen.keys_on else {}, "widths": pictures.WIDTHS, "renew": options.RENEW.total_seconds()}
    page["reasons"], changes = project.dislike_reasons, project.inputs.exists()
    context = {
        "project": project,
        "page": "annotate",
        "manages": may(request.user, project, Action.SEE),
        "keys_on": chosen.keys_on,
        "command_keys": [
            (name, mine[command])
            for command, name in keys.COMMANDS.items()
            if (command != "why" or project.dislike_reasons) and (command != "compare" or changes)
        ],
        "image_keys": [mine[f"image_{n}"] for n in range(1, keys.MOST_IMAGES + 1)],
        "compare_key": mine["compare"] if chosen.keys_on else "",
        "page_data": page,
        "skip_reasons": SkipReason.choices,
        "flag_kinds": FlagKind.choices,
        "examples": queries.examples(project),
    }
    return render(request, "labelling/annotate.html", context)


@require_GET
@member(Action.LABEL)
def app_manifest(request: HttpRequest, project: Project) -> JsonResponse:
    """What makes the rating page an app of its own on a phone."""
    page = reverse("annotate", args=[project.slug])
    icons = [
        {"src": static(f"img/icon-{size}.png"), "sizes": f"{size}x{size}", "type": "image/png"} for size in (192, 512)
    ]
    about = {"id": page, "start_url": page, "scope": "/", "name": f"{project.name} · Likestep", "icons": icons}
    about |= {"short_name": project.name[:30], "display": "standalone", "background_color": "#f6f7f9"}
    return JsonResponse(about, content_type="application/manifest+json")


@require_GET
def service_worker(request: HttpRequest) -> HttpResponse:
    """The rating page's service worker, at the top so that it may speak for every project; browsers ask if it changed."""
    code = (places.shipped("static") / "js" / "service-worker.js").read_bytes()
    return HttpResponse(code, content_type="text/javascript; charset=utf-8", headers={"Cache-Control": "no-cache"})


@require_GET
@never_cache
@member(Action.LABEL)
def next_groups(request: HttpRequest, project: Project) -> JsonResponse:
    """The groups leased to this person, topped up for prefetching, the names of all they hold, today's counts, why there is
    none, and where the person has to `go` first."""
    go, waiting = "", ""
    try:
        groups, held = leases.hold_groups(request.user, project, options.PREFETCH)
    except errors.Stopped as stopped:
        groups, held = [], []
        go, waiting = reverse("annotate", args=[project.slug]), str(stopped)
    return JsonResponse(
        {
            "groups": [group_json(g) for g in groups],
            "held": held,
            "today": queries.today(request.user, project),
            "waiting": "" if groups else waiting or _why_none(request, project),
            "go": go,
        }
    )


def _why_none(request: HttpRequest, project: Project) -> str:
    """Why there is no group; who is paid by the time is told whom to ask."""
    said = why_none(project)
    if not request.user.outside or not studies.takes_part(request.user):
        return said
    return f"{said} {_('If none comes within ten minutes, write to the researcher on Prolific.')}"


@require_POST
@member(Action.LABEL)
def submit(request: HttpRequest, project: Project, task: str) -> JsonResponse:
    """Body `{labels: {position: bool}, seconds, key}`, and `why: {position: {reason, box}}` of dislikes if wanted; 409 when
    the key was used for another answer."""
    try:
        body = _body(request)
        labels = body.get("labels")
        if not isinstance(labels, dict) or not all(isinstance(v, bool) for v in labels.values()):
            raise errors.LabellingError(_("labels: send an object of position to true (like) or false (dislike)"))
        group_id = leases.group_of(request.user, project, task)
        answer = {bounds.POSITION.of_text(k, "labels"): v for k, v in labels.items()}
        seconds = bounds.SECONDS.real(body.get("seconds", 0), "seconds")
        decisions.submit_group(
            request.user,
            project,
            group_id,
            answer,
            seconds=seconds,
            idempotency_key=_text(body, "key"),
            why=why.read(body.get("why", {}), answer),
        )
    except (errors.LabellingError, bounds.OutOfBounds) as error:
        return _refused(error)
    return JsonResponse({"saved": task, "today": queries.today(request.user, project)})


@require_POST
@member(Action.LABEL)
def skip(request: HttpRequest, project: Project, task: str) -> JsonResponse:
    """Body `{reason, note, key}`; `reason` is empty or one of SkipReason."""
    try:
        body = _body(request)
        decisions.skip_group(
            request.user,
            project,
            leases.group_of(request.user, project, task),
            reason=_text(body, "reason"),
            note=_text(body, "note"),
            idempotency_key=_text(body, "key"),
        )
    except errors.LabellingError as error:
        return _refused(error)
    return JsonResponse({"saved": task})


@require_POST
@member(Action.LABEL)
def flag(request: HttpRequest, project: Project, task: str) -> JsonResponse:
    """Body `{kind, position, note, key}`; `position` is null for the whole group."""
    try:
        body = _body(request)
        position = body.get("position")  # null: the whole group
        if position is not None:
            position = bounds.POSITION.whole(position, "position")
        decisions.flag_group(
            request.user,
            project,
            leases.group_of(request.user, project, task),
            kind=_text(body, "kind"),
            position=position,
            note=_text(body, "note"),
            idempotency_key=_text(body, "key"),
        )
    except (errors.LabellingError, bounds.OutOfBounds) as error:
        return _refused(error)
    return JsonResponse({"saved": task})


@require_POST
@member(Action.LABEL)
def undo(request: HttpRequest, project: Project) -> JsonResponse:
    """Takes a decision back, the one of `{key}`, the one on `{group}` or the latest: the group with the answer that was
    given and why, or null."""
    try:
        body = _body(request)
        task = _text(body, "group")
        group_id = leases.group_of(request.user, project, task) if task else None
        undone = decisions.undo(request.user, project, _text(body, "key")[:64], group_id=group_id)
    except errors.LabellingError as error:
        return _refused(error)
    today = queries.today(request.user, project)
    if undone is None:
        return JsonResponse({"group": None, "today": today})
    group, answer, said = undone
    return JsonResponse({"group": group_json(group), "labels": answer, "why": said, "today": today})


@require_GET
@member(Action.SEE)
def image(request: HttpRequest, project: Project, generation_id: int) -> HttpResponse:
    """One image by its number, no wider than `?w=` asks for; the bytes of an address never change."""
    found = get_object_or_404(Generation, pk=generation_id, group__project=project)
    return image_response(found, request.GET.get("w", ""), may_redirect=True)


@require_GET
@member(Action.LABEL)
def task_image(request: HttpRequest, project: Project, task: str, position: int) -> HttpResponse:
    """An image of a group that this person was given."""
    return image_response(queries.task_image(request.user, project, task, position), request.GET.get("w", ""))


@require_GET
@member(Action.LABEL)
def practice_image(request: HttpRequest, project: Project, turn: int, position: int) -> HttpResponse:
    """An image of a group in this person's practice."""
    return image_response(practice.image_at(request.user, project, turn, position), request.GET.get("w", ""))


@require_GET
@member(Action.LABEL)
def task_input(request: HttpRequest, project: Project, task: str) -> HttpResponse:
    """The image that the prompt of a group changed which this person was given."""
    return task_input_response(request.user, project, task)


def task_input_response(user, project: Project, task: str) -> HttpResponse:
    """The same for whoever asks, or 404."""
    found = queries.task_image(user, project, task, 0)
    return input_response(project, found.group.input_image if found else "")


@require_GET
@member(Action.SEE)
def input_image(request: HttpRequest, project: Project, digest: str) -> HttpResponse:
    """An image that prompts of the project change."""
    return input_response(project, digest)


def input_response(project: Project, digest: str) -> HttpResponse:
    """The file of an input image of the project, or 404."""
    if not digest or not project.inputs.filter(digest=digest).exists():
        raise Http404
    name = paths.input_image(digest)
    return media.picture(name, cache="private, max-age=604800, immutable", may_redirect=False)


@require_GET
@member(Action.LEARN)
def example_image(request: HttpRequest, project: Project, example_id: int) -> HttpResponse:
    """An image of the guidelines."""
    example = get_object_or_404(queries.examples(project), pk=example_id)
    return image_response(example.generation, request.GET.get("w", ""))


def image_response(image: Generation | None, width: str = "", *, may_redirect: bool = False) -> HttpResponse:
    """The file of an image, no wider than `width` pixels asks for ("": as it is), or 404. With a bucket a redirect to it
    where that may be: an address in the bucket tells annotators the group, and programs would send their token along."""
    if image is None:
        raise Http404
    try:
        if may_redirect and storage.store().origin:
            return media.away(pictures.name_at(image, width))
        data = pictures.read_at(image, width)
    except storage.Unreachable as error:
        return media.unreachable(error)
    except (OSError, ValueError) as error:
        report_damaged(image, f"{image.image} cannot be shown: {error}")
        raise Http404 from error
    response = HttpResponse(data, content_type="image/webp")
    response["Cache-Control"] = "private, max-age=604800, immutable"
    return response


@member(Action.LEARN)
def me(request: HttpRequest, project: Project) -> HttpResponse:
    """A person's own page: how they work, which keys they use, which language they read."""
    mine = queries.preferences(request.user)
    chosen, wrong, error = keys.merged(mine.keys), "", ""
    on = mine.keys_on
    status = 200
    if request.method == "POST":
        on = request.POST.get("keys_on") == "on"
        defaults = "reset" in request.POST
        chosen = dict(keys.DEFAULTS) if defaults else {c: request.POST.get(c, "")[:20] for c in keys.DEFAULTS}
        try:
            save_keys(request.user, chosen, keys_on=on)
        except keys.KeyChoiceError as problem:
            wrong, error, status = problem.field, str(problem), 400
        else:
            messages.success(request, _("Your keys are saved."))
            return redirect("me", project.slug)
    rows = [
        {"command": c, "name": keys.name_of(c), "key": chosen[c], "error": error if c == wrong else ""}
        for c in keys.DEFAULTS
    ]
    context = {
        "project": project,
        "page": "me",
        "manages": may(request.user, project, Action.SEE),
        "today": queries.today(request.user, project),
        "days": queries.recent_days(request.user, project),
        "pace": queries.pace(request.user, project),
        "agreement": queries.agreement(request.user, project),
        "rows": rows,
        "keys_on": on,
        "key_error": error,
        "languages": settings.LANGUAGES,
    }
    return render(request, "labelling/me.html", context, status=status)


@require_POST
@member(Action.LEARN)
def language(request: HttpRequest, project: Project) -> HttpResponse:
    """Keep the language of this browser."""
    code = request.POST.get("language", "")
    if code not in dict(settings.LANGUAGES) or not check_for_language(code):
        return HttpResponseBadRequest(f"language: send one of {', '.join(dict(settings.LANGUAGES))}")
    response = redirect("me", project.slug)
    response.set_cookie(
        settings.LANGUAGE_COOKIE_NAME,
        code,
        max_age=365 * 86_400,
        samesite="Lax",
        httponly=True,
        secure=request.is_secure(),
    )
    return response


@member(Action.REVIEW)
def flags(request: HttpRequest, project: Project) -> HttpResponse:
    """Flagged groups for reviewers; POST `{group, decision=restore|remove}`."""
    if request.method == "POST":
        decision, number = request.POST.get("decision"), request.POST.get("group", "")
        if decision not in ("restore", "remove"):
            raise Http404
        try:
            group_id = bounds.ROW.of_text(number, "group")
            decisions.resolve_flags(request.user, project, group_id, restore=decision == "restore")
        except (errors.LabellingError, bounds.OutOfBounds) as error:
            messages.error(request, str(error))
        return redirect("flags", project.slug)
    rows = Paginator(queries.flagged_groups(project), options.PICTURE_ROWS).get_page(request.GET.get("page"))
    context = {"project": project, "page": "flags", "rows": rows}
    return render(request, "labelling/flags.html", context)


@require_POST
@member(Action.SETTINGS)
def ask_oracle_again(request: HttpRequest, project: Project) -> HttpResponse:
    """Let the chosen oracle judge what it has not judged."""
    try:
        n = following.ask_oracle_again(project, request.user)
    except errors.LabellingError as error:
        messages.error(request, str(error))
    else:
        said = ngettext("%(n)s group is with the oracle now.", "%(n)s groups are with the oracle now.", n)
        messages.success(request, said % {"n": n})
    return redirect("project-settings", project.slug)


@require_POST
@member(Action.SETTINGS)
def oracle_threshold(request: HttpRequest, project: Project) -> HttpResponse:
    """Use the threshold that was fitted for the oracle, or, with `drop=1`, the oracle's own word again."""
    try:
        if request.POST.get("drop") == "1":
            n = following.drop_threshold(project, request.user)
            said = ngettext(
                "The oracle judges %(n)s group once more.", "The oracle judges %(n)s groups once more.", n
            ) % {"n": n}
        else:
            value = following.use_threshold(project, request.user)
            said = _("Liked is what has a score of %(value)s or more; what is judged already follows in a moment.")
            said = said % {"value": f"{value:.2f}"}
    except errors.LabellingError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, said)
    return redirect("project-settings", project.slug)


@member(Action.LEARN)
def guidelines(request: HttpRequest, project: Project) -> HttpResponse:
    """The guidelines with their examples; reviewers add and remove examples."""
    reviews = may(request.user, project, Action.REVIEW)
    if request.method == "POST":
        if not reviews:
            raise Http404
        try:
            if number := request.POST.get("remove", ""):
                remove_example(project, bounds.ROW.of_text(number, "remove"))
            else:
                add_example(
                    project,
                    bounds.ROW.of_text(request.POST.get("image"), "image"),
                    good=request.POST.get("good") == "yes",
                    note=request.POST.get("note", ""),
                )
        except (errors.LabellingError, bounds.OutOfBounds) as error:
            messages.error(request, str(error))
        return redirect("guidelines", project.slug)
    context = {
        "project": project,
        "page": "guidelines",
        "examples": queries.examples(project),
        "reviews": reviews,
        "manages": reviews,
        "candidates": queries.example_candidates(project) if reviews else [],
    }
    return render(request, "labelling/guidelines.html", context)


def _text(body: dict, name: str) -> str:
    """A string of the body; empty when it is not there."""
    value = body.get(name, "")
    if not isinstance(value, str):
        raise errors.LabellingError(_("%(field)s: send a text") % {"field": name})
    return value


def _body(request: HttpRequest) -> dict:
    try:
        body = texts.body(request)
    except texts.Unstorable as error:
        raise errors.LabellingError(str(error)) from error
    except ValueError as error:
        raise errors.LabellingError(_("body: send a JSON object")) from error
    if not isinstance(body, dict):
        raise errors.LabellingError(_("body: send a JSON object"))
    return body


def _refused(error: errors.LabellingError | bounds.OutOfBounds) -> JsonResponse:
    told = {"error": str(error)}
    if isinstance(error, errors.Decided):
        told["decided"] = True
    return JsonResponse(told, status=getattr(error, "status", 400))
