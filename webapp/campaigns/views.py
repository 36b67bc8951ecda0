"""Making, changing, copying and archiving projects; adding prompts; who changed what."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.text import slugify
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts.permissions import Action, may_create_projects, member
from webapp.campaigns import services
from webapp.campaigns.forms import NewProjectForm, ProjectForm, PromptsForm
from webapp.campaigns.models import Project, Split
from webapp.campaigns.training import TrainingForm
from webapp.lib import options
from webapp.lib.dispatch import enqueue


@login_required
def new_project(request: HttpRequest) -> HttpResponse:
    """The form; `action=preview` shows what would be imported, `action=create` makes the project or nothing."""
    if not may_create_projects(request.user):
        raise Http404
    if request.method != "POST":
        form, training = NewProjectForm(user=request.user), TrainingForm(prefix="training")
        context = {"form": form, "prompts": PromptsForm(user=request.user), "training": training, "page": "home"}
        return render(request, "campaigns/new.html", context)
    form = NewProjectForm(request.POST, user=request.user)
    training = TrainingForm(request.POST, prefix="training")
    valid = [form.is_valid(), training.is_valid()]
    oracle = form.cleaned_data.get("oracle") or ""
    prompts = PromptsForm(request.POST, request.FILES, user=request.user, oracle=oracle, model=form.model_dir())
    valid.append(prompts.ready())
    if all(valid) and request.POST.get("action") == "create" and not _changed(request, prompts):
        rows = prompts.rows()
        try:
            project = services.create_project(
                prompts=rows, by=request.user, round_settings=training.differences(), **form.values()
            )
        except services.CampaignError as error:
            form.add_error(None, str(error))
        else:
            enqueue("housekeeping", project.pk)  # queues the first groups
            messages.success(
                request,
                _("%(name)s is ready, with %(count)s prompts. Its first groups are coming.")
                % {"name": project.name, "count": len(rows)},
            )
            return redirect("dashboard", project.slug)
    context = {
        "form": form,
        "prompts": prompts.shown_again(),
        "training": training,
        "page": "home",
        "checked": all(valid),
    }
    return render(request, "campaigns/new.html", context, status=200 if all(valid) and not form.errors else 400)


def _changed(request: HttpRequest, prompts: PromptsForm) -> bool:
    """Whether the prompts are not those that were previewed; says so, since they are previewed again then."""
    if changed := prompts.changed():
        messages.info(request, _("These are not the prompts of the preview; look at them once more."))
    return changed


@member(Action.SETTINGS)
def project_settings(request: HttpRequest, project: Project) -> HttpResponse:
    """Change what may be changed while the project runs."""
    sent = request.POST if request.method == "POST" else None
    form = ProjectForm(sent, instance=Project.objects.get(pk=project.pk))
    training = TrainingForm(sent, defaults=project.round_settings, prefix="training")
    if sent is not None and form.is_valid() and training.is_valid():
        changed = services.update_project(
            project, request.user, **form.cleaned_data, round_settings=training.differences()
        )
        messages.success(
            request,
            _("Saved: %(values)s.") % {"values": ", ".join(changed)} if changed else _("Nothing was different."),
        )
        return redirect("project-settings", project.slug)
    context = {"project": project, "form": form, "training": training, "page": "settings"}
    return render(request, "campaigns/settings.html", context, status=200 if sent is None else 400)


@require_POST
@member(Action.SETTINGS)
def clone(request: HttpRequest, project: Project) -> HttpResponse:
    """A copy under the name in `name`."""
    name = request.POST.get("name", "").strip()[:120] or _("%(name)s copy") % {"name": project.name}
    try:
        address = slugify(name)[:50] or f"{project.slug[:45]}-copy"  # a name in another script has no slug
        made = services.clone_project(project, address, name, request.user)
    except services.CampaignError as error:
        messages.error(request, str(error))
        return redirect("project-settings", project.slug)
    messages.success(
        request,
        _("%(name)s has the settings, prompts and model of %(original)s, and no labels yet.")
        % {"name": made.name, "original": project.name},
    )
    return redirect("project-settings", made.slug)


@require_POST
@member(Action.SETTINGS)
def archive(request: HttpRequest, project: Project) -> HttpResponse:
    """Archive, or reopen with `reopen=1`."""
    archived = request.POST.get("reopen") != "1"
    services.set_archived(project, archived, request.user)
    messages.success(
        request, (_("%(name)s is archived.") if archived else _("%(name)s is open again.")) % {"name": project.name}
    )
    return redirect("home" if archived else "dashboard", *([] if archived else [project.slug]))


@member(Action.PROMPTS)
def prompts(request: HttpRequest, project: Project) -> HttpResponse:
    """The prompts page by page, and more of them by upload with a preview (`action=preview|add`)."""
    form, checked, status = PromptsForm(user=request.user), False, 200
    if request.method == "POST":
        about = {"project": project, "oracle": project.oracle, "model": project.model_dir}
        form = PromptsForm(request.POST, request.FILES, user=request.user, **about)
        checked = form.ready()
        if checked and request.POST.get("action") == "add" and not _changed(request, form):
            rows = form.rows()
            try:
                new = services.add_prompts(project, rows, by=request.user)
            except services.CampaignError as error:
                messages.error(request, str(error))
                return redirect("prompts", project.slug)
            known = len(rows) - new
            messages.success(
                request, _("%(new)s prompts added; %(known)s were there already.") % {"new": new, "known": known}
            )
            if form.parsed.cut and form.known is None:  # else the preview said so
                said = "; ".join(str(problem) for problem in form.parsed.cut[:5])
                messages.warning(request, _("Longer than the model reads: %(prompts)s.") % {"prompts": said})
            return redirect("prompts", project.slug)
        form, status = form.shown_again(), 200 if checked else 400
    split = request.GET.get("split") if request.GET.get("split") in Split.values else ""
    rows = project.prompts.order_by("pk").filter(**({"split": split} if split else {}))
    context = {
        "project": project,
        "prompts": form,
        "checked": checked,
        "rows": Paginator(rows, options.ROWS).get_page(request.GET.get("page")),
        "split": split,
        "splits": Split.values,
        "page": "prompts",
    }
    return render(request, "campaigns/prompts.html", context, status=status)


@require_GET
@member(Action.SETTINGS)
def audit_log(request: HttpRequest, project: Project) -> HttpResponse:
    """Who changed what, newest first."""
    entries = Paginator(project.audit_entries.select_related("user"), options.ROWS).get_page(request.GET.get("page"))
    return render(request, "campaigns/audit.html", {"project": project, "rows": entries, "page": "settings"})
