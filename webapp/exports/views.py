"""Labels out as a streamed download, and back in."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts.permissions import Action, member
from webapp.campaigns.models import Project
from webapp.exports import imports, writers
from webapp.exports.formats import FORMATS, GroupRecord, ImageRecord
from webapp.exports.forms import ExportForm
from webapp.exports.records import MOST_COUNTED, count, records
from webapp.lib.streaming import streamed

TYPES = {"jsonl": "application/jsonl", "json": "application/json", "parquet": "application/vnd.apache.parquet"}


@require_GET
@member(Action.EXPORT)
def export_page(request: HttpRequest, project: Project) -> HttpResponse:
    """The form; with a query, how many groups it lets through."""
    form = ExportForm(request.GET or None, project=project)
    groups = count(project, form.filter()) if form.is_bound and form.is_valid() else None
    more = groups is not None and groups > MOST_COUNTED
    context = {
        "project": project,
        "form": form,
        "groups": MOST_COUNTED if more else groups,
        "more": more,
        "page": "export",
    }
    return render(request, "exports/export.html", context)


@require_GET
@member(Action.EXPORT)
def download(request: HttpRequest, project: Project) -> HttpResponse:
    """The file of the form's query."""
    form = ExportForm(request.GET, project=project)
    if not form.is_valid():
        context = {"project": project, "form": form, "page": "export"}
        return render(request, "exports/export.html", context, status=400)
    return export_response(request, project, form)


def export_response(request: HttpRequest, project: Project, form: ExportForm, *, image: str = "image") -> HttpResponse:
    """The streamed file of a valid form. The API answers with the same and names images by its own address `image`."""
    chosen, container = FORMATS[form.cleaned_data["format"]], form.cleaned_data["container"]
    groups = records(project, form.filter())
    name = f"{project.slug}-{chosen.name}"
    if container.startswith("zip-"):
        pieces = writers.archive(chosen, container.removeprefix("zip-"), groups)
        return streamed(pieces, content_type="application/zip", name=f"{name}.zip")

    def reference(group: GroupRecord, record: ImageRecord) -> str:
        return request.build_absolute_uri(reverse(image, args=[group.project, record.id]))

    ending = "json" if chosen.schema is None else container.partition("-")[0]
    pieces = writers.one_file(chosen, container, groups, reference)
    return streamed(pieces, content_type=TYPES[ending], name=f"{name}.{ending}")


@require_POST
@member(Action.IMPORT)
def import_labels(request: HttpRequest, project: Project) -> HttpResponse:
    """Labels of a `labels` export (JSONL or Parquet) back in: every line or none."""
    file = request.FILES.get("file")
    if file is None:
        messages.error(request, _("file: choose a file of the labels export"))
        return redirect("export", project.slug)
    if file.size > settings.LIKESTEP_IMPORT_LIMIT:
        result = imports.Imported(errors=[imports.too_large(file.size)])
    else:
        rows, errors = imports.read_rows(file.read(), file.name)
        result = imports.Imported(errors=errors) if errors else imports.import_labels(project, rows, by=request.user)
    context = {"project": project, "form": ExportForm(project=project), "result": result, "page": "export"}
    return render(request, "exports/export.html", context, status=400 if result.errors else 200)
