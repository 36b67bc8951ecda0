"""Labels out as a streamed download, and back in."""

from __future__ import annotations

from collections.abc import Iterator

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
from webapp.exports.formats import FORMATS, Format
from webapp.exports.forms import CONTAINERS, ExportForm
from webapp.exports.records import MOST_COUNTED, GroupRecord, ImageRecord, count, records
from webapp.lib.streaming import streamed

TYPES = {
    "jsonl": "application/jsonl",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}


@require_GET
@member(Action.EXPORT)
def export_page(request: HttpRequest, project: Project) -> HttpResponse:
    """The form; with a query, how many groups it lets through."""
    form = ExportForm(request.GET or None, project=project)
    groups = count(project, form.filter()) if form.is_bound and form.is_valid() else None
    more = groups is not None and groups > MOST_COUNTED
    return _page(request, project, form, groups=MOST_COUNTED if more else groups, more=more)


def _page(request: HttpRequest, project: Project, form: ExportForm, *, status: int = 200, **context) -> HttpResponse:
    formats = [(f, [CONTAINERS[name] for name in f.containers]) for f in FORMATS.values()]
    context |= {"project": project, "form": form, "formats": formats, "page": "export"}
    return render(request, "exports/export.html", context, status=status)


@require_GET
@member(Action.EXPORT)
def download(request: HttpRequest, project: Project) -> HttpResponse:
    """The file of the form's query."""
    form = ExportForm(request.GET, project=project)
    if not form.is_valid():
        return _page(request, project, form, status=400)
    return export_response(request, project, form)


def export_response(request: HttpRequest, project: Project, form: ExportForm, *, image: str = "image") -> HttpResponse:
    """The streamed file of a valid form. The API answers with the same and names images by its own address `image`."""
    chosen, container = FORMATS[form.cleaned_data["format"]], form.cleaned_data["container"]
    return file_of(request, project, chosen, container, records(project, form.filter()), image=image)


def file_of(
    request: HttpRequest,
    project: Project,
    chosen: Format,
    container: str,
    groups: Iterator[GroupRecord],
    *,
    image: str = "image",
) -> HttpResponse:
    """The streamed file of these groups in that format."""
    name = f"{project.slug}-{chosen.name}"
    if container.startswith("zip-"):
        pieces = writers.archive(chosen, container, groups)
        return streamed(pieces, content_type="application/zip", name=f"{name}.zip")

    def reference(group: GroupRecord, record: ImageRecord) -> str:
        return request.build_absolute_uri(reverse(image, args=[group.project, record.id]))

    ending = container.partition("-")[0]
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
    return _page(request, project, ExportForm(project=project), status=400 if result.errors else 200, result=result)
