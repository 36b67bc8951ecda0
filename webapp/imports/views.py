"""The page where an admin brings images in, and says what became of each."""

from __future__ import annotations

from functools import partial

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from webapp.accounts.permissions import Action, member
from webapp.campaigns.models import Project
from webapp.imports import files, services
from webapp.imports.forms import OwnImagesForm
from webapp.imports.models import ImageImport
from webapp.imports.report import ImageOutcome, Line
from webapp.lib import bounds

SHOWN = 10  # earlier imports
LINES = 500  # of a report, those that were not taken first


@require_http_methods(["GET", "POST"])
@member(Action.IMPORT)
def own_images(request: HttpRequest, project: Project) -> HttpResponse:
    """The form; `report` shows what became of an import's files. POST brings `files` in."""
    form = OwnImagesForm(request.POST if request.method == "POST" else None)
    done = None
    if request.method == "POST" and form.is_valid():
        try:
            found = request.FILES.getlist("files")
            if not found:
                raise services.ImagesError(_("files: choose an archive or images"))
            done = services.bring_in(
                project, files.name_of(found), partial(files.read, files=found), choices=form.choices(), by=request.user
            )
        except services.ImagesError as error:
            form.add_error("files", str(error))
    if done is not None and done.pk:
        return redirect(f"{reverse('own-images', args=[project.slug])}?report={done.pk}#report")
    earlier = project.image_imports.select_related("user").defer("report")[:SHOWN]
    context = {"project": project, "form": form, "page": "own-images", "imports": earlier}
    if done is None:
        done = _asked_for(request, project)
    if done is not None:
        context |= _report(done)
    refused = request.method == "POST" and (
        done is None or not (context["counts"]["known"] or context["counts"]["left"])
    )
    return render(request, "imports/own_images.html", context, status=400 if refused else 200)


def _asked_for(request: HttpRequest, project: Project) -> ImageImport | None:
    """The import that the query names."""
    if "report" not in request.GET:
        return None
    try:
        number = bounds.ROW.of_text(request.GET["report"], "report")
    except bounds.OutOfBounds as error:
        raise Http404 from error
    return get_object_or_404(ImageImport, pk=number, project=project)


def _report(found: ImageImport) -> dict:
    lines = [Line.from_json(value) for value in found.report]
    lines.sort(key=lambda line: line.outcome == ImageOutcome.TAKEN)
    counts = {str(outcome): sum(line.outcome == outcome for line in lines) for outcome in ImageOutcome}
    return {"report": found, "lines": lines[:LINES], "more": max(0, len(lines) - LINES), "counts": counts}
