"""The annotate page and its JSON endpoints."""

from __future__ import annotations

import json

from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from webapp import paths
from webapp.accounts.permissions import member
from webapp.campaigns.models import Project, Role
from webapp.labelling import queries, services
from webapp.labelling.models import Generation, Group

PREFETCH = 3


def group_json(group: Group) -> dict:
    """A group as the page needs it."""
    return {
        "group": group.pk,
        "prompt": group.prompt.text,
        "version": group.version.number,
        "images": [
            {
                "position": g.position,
                "url": reverse("image", args=[group.project.slug, g.pk]),
                "width": g.width,
                "height": g.height,
            }
            for g in group.generations.all()
        ],
    }


@require_GET
@member(Role.ANNOTATOR)
def annotate(request: HttpRequest, project: Project) -> HttpResponse:
    """The page; its script asks for groups."""
    return render(request, "labelling/annotate.html", {"project": project, "page": "annotate"})


@require_GET
@member(Role.ANNOTATOR)
def next_groups(request: HttpRequest, project: Project) -> JsonResponse:
    """The groups leased to this person, topped up for prefetching, and the session's counts."""
    groups = services.lease_groups(request.user, project, PREFETCH)
    return JsonResponse(
        {"groups": [group_json(g) for g in groups], "session": queries.session_counts(request.user, project)}
    )


@require_POST
@member(Role.ANNOTATOR)
def submit(request: HttpRequest, project: Project, group_id: int) -> JsonResponse:
    """Body `{labels: {position: bool}, seconds, key}`; 409 when the key was used for another answer."""
    try:
        body = _body(request)
        labels = body.get("labels")
        if not isinstance(labels, dict) or not all(isinstance(v, bool) for v in labels.values()):
            raise services.LabellingError("labels: send an object of position to true (like) or false (dislike)")
        if not all(k.isdigit() for k in labels):
            raise services.LabellingError("labels: positions are whole numbers from 0")
        answer = {int(k): v for k, v in labels.items()}
        seconds = body.get("seconds", 0)
        if not isinstance(seconds, int | float):
            raise services.LabellingError("seconds: send a number")
        services.submit_group(
            request.user, project, group_id, answer, seconds=float(seconds), idempotency_key=str(body.get("key", ""))
        )
    except services.LabellingError as error:
        return _refused(error)
    return JsonResponse({"saved": group_id, "session": queries.session_counts(request.user, project)})


@require_POST
@member(Role.ANNOTATOR)
def skip(request: HttpRequest, project: Project, group_id: int) -> JsonResponse:
    """Body `{reason, key}`."""
    try:
        body = _body(request)
        services.skip_group(
            request.user,
            project,
            group_id,
            reason=str(body.get("reason", "")),
            idempotency_key=str(body.get("key", "")),
        )
    except services.LabellingError as error:
        return _refused(error)
    return JsonResponse({"saved": group_id})


@require_POST
@member(Role.ANNOTATOR)
def undo(request: HttpRequest, project: Project) -> JsonResponse:
    """Takes the latest decision back: the group with the answer that was given, or null."""
    undone = services.undo_last(request.user, project)
    if undone is None:
        return JsonResponse({"group": None})
    group, answer = undone
    session = queries.session_counts(request.user, project)
    return JsonResponse({"group": group_json(group), "labels": answer, "session": session})


@require_GET
@member(Role.ANNOTATOR)
def image(request: HttpRequest, project: Project, generation_id: int) -> HttpResponse:
    """One image, for members only; its bytes never change."""
    return image_response(project, generation_id)


def image_response(project: Project, generation_id: int) -> HttpResponse:
    """The file of an image of this project, or 404."""
    generation = get_object_or_404(Generation, pk=generation_id, group__project=project)
    try:
        file = paths.data(generation.image).open("rb")
    except OSError as error:
        raise Http404 from error
    response = FileResponse(file, content_type="image/webp")
    response["Cache-Control"] = "private, max-age=86400, immutable"
    return response


def _body(request: HttpRequest) -> dict:
    try:
        body = json.loads(request.body)
    except ValueError as error:
        raise services.LabellingError("body: send a JSON object") from error
    if not isinstance(body, dict):
        raise services.LabellingError("body: send a JSON object")
    return body


def _refused(error: services.LabellingError) -> JsonResponse:
    # 503 is the only one that the page sends again.
    status = {services.Conflict: 409, services.Busy: 503}.get(type(error), 400)
    return JsonResponse({"error": str(error)}, status=status)
