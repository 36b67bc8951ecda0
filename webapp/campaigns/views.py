"""Making, changing, copying and archiving projects; adding prompts; who changed what."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts.permissions import Action, may_create_projects, member
from webapp.campaigns import inputs, queries, services
from webapp.campaigns import prompts as campaign_prompts
from webapp.campaigns.forms import InputForm, NewProjectForm, ProjectForm, PromptsForm
from webapp.campaigns.models import Project
from webapp.campaigns.training import TrainingForm
from webapp.lib import bounds, options
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
        enqueue("housekeeping", project.pk)  # groups follow: some may have enough answers now
        messages.success(
            request,
            _("Saved: %(values)s.") % {"values": ", ".join(changed)} if changed else _("Nothing was different."),
        )
        return redirect("project-settings", project.slug)
    context = {"project": project, "form": form, "training": training, "page": "settings"}
    context["judges"] = project.oracle_qualities.all()
    mine = next((j for j in context["judges"] if j.oracle == project.oracle and not j.tag), None)
    context["threshold"] = project.oracle_thresholds.get(project.oracle)
    fitted = None if mine is None or mine.threshold is None else round(mine.threshold, 4)
    context["offered"] = mine if fitted is not None and fitted != context["threshold"] else None
    context["unjudged"] = queries.unjudged(project).count() if project.oracle else 0
    return render(request, "campaigns/settings.html", context, status=200 if sent is None else 400)


@require_POST
@member(Action.SETTINGS)
def clone(request: HttpRequest, project: Project) -> HttpResponse:
    """A copy under the name in `name`, at the address in `slug` or one that is made of the name."""
    name = request.POST.get("name", "").strip()[:120] or _("%(name)s copy") % {"name": project.name}
    try:
        made = services.clone_project(project, request.POST.get("slug", "").strip(), name, request.user)
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
    """The prompts page by page (`?q=` words, `?show=` a split or withdrawn); more of them by upload with a preview
    (`action=preview|add`); `action=withdraw|restore|tag` for those whose ids are in `prompt`."""
    form, checked, status = PromptsForm(user=request.user), False, 200
    action = request.POST.get("action")
    if action in ("withdraw", "restore", "tag"):
        _change_prompts(request, project, action)
        return redirect(request.get_full_path())
    if request.method == "POST":
        about = {"project": project, "oracle": project.oracle, "model": project.model_dir}
        form = PromptsForm(request.POST, request.FILES, user=request.user, **about)
        checked = form.ready()
        if checked and action == "add" and not _changed(request, form):
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
    return _prompts_page(request, project, form, checked=checked, status=status)


def _prompts_page(
    request: HttpRequest,
    project: Project,
    form: PromptsForm,
    *,
    checked: bool = False,
    status: int = 200,
    input_form: InputForm | None = None,
) -> HttpResponse:
    show = request.GET.get("show") if request.GET.get("show") in campaign_prompts.SHOWN else ""
    words = request.GET.get("q", "")[: bounds.WORD]
    found = campaign_prompts.find(project, words=words, show=show)
    rows = Paginator(found, options.ROWS).get_page(request.GET.get("page"))
    rates = campaign_prompts.like_rates([row.pk for row in rows])
    for row in rows:
        row.rates = rates.get(row.pk, [])
    context = {
        "project": project,
        "prompts": form,
        "checked": checked,
        "rows": rows,
        "show": show,
        "words": words,
        "shown": campaign_prompts.SHOWN,
        "tags": campaign_prompts.tags_of(project),
        "input_form": input_form or (InputForm() if inputs.takes_images(project) else None),
        "page": "prompts",
    }
    return render(request, "campaigns/prompts.html", context, status=status)


@require_POST
@member(Action.PROMPTS)
def add_input(request: HttpRequest, project: Project) -> HttpResponse:
    """Keep an image and add the prompts that change it, all or nothing."""
    form = InputForm(request.POST, request.FILES)
    if form.is_valid():
        data = form.cleaned_data
        try:
            image = inputs.add(project, data["image"].read(settings.LIKESTEP_INPUT_LIMIT + 1), request.user)
            about = {"split": data["split"], "metadata": {services.INPUT: image.digest}}
            rows = [{"prompt": text, **about} for text in data["texts"]]
            new = services.add_prompts(project, rows, by=request.user)
        except services.CampaignError as error:
            form.add_error("image", str(error))
        else:
            known = len(rows) - new
            said = _("%(new)s prompts added; %(known)s were there already.")
            messages.success(request, said % {"new": new, "known": known})
            enqueue("housekeeping", project.pk)
            return redirect("prompts", project.slug)
    return _prompts_page(request, project, PromptsForm(user=request.user), status=400, input_form=form)


def _change_prompts(request: HttpRequest, project: Project, action: str) -> None:
    """Withdraws, restores or tags the chosen ones, and says how many were."""
    try:
        ids = [bounds.ROW.of_text(number, "prompt") for number in request.POST.getlist("prompt")]
        if action == "tag":
            n = campaign_prompts.set_tag(project, ids, request.POST.get("tag", ""), request.user)
            said = ngettext("%(n)s prompt has another kind now.", "%(n)s prompts have another kind now.", n)
        elif action == "restore":
            n = campaign_prompts.restore(project, ids, request.user)
            said = ngettext("%(n)s prompt is in use again.", "%(n)s prompts are in use again.", n)
        else:
            n = campaign_prompts.withdraw(project, ids, request.user)
            said = ngettext(
                "%(n)s prompt is withdrawn: no new images are made of it. Its labels stay and count.",
                "%(n)s prompts are withdrawn: no new images are made of them. Their labels stay and count.",
                n,
            )
    except (services.CampaignError, bounds.OutOfBounds) as error:
        messages.error(request, str(error))
        return
    if not ids:
        messages.info(request, _("Choose prompts first."))
        return
    messages.success(request, said % {"n": n})
    enqueue("housekeeping", project.pk)  # groups of other prompts take the place of those that were dropped


@require_GET
@member(Action.SETTINGS)
def audit_log(request: HttpRequest, project: Project) -> HttpResponse:
    """Who changed what, newest first."""
    entries = Paginator(project.audit_entries.select_related("user"), options.ROWS).get_page(request.GET.get("page"))
    return render(request, "campaigns/audit.html", {"project": project, "rows": entries, "page": "settings"})
