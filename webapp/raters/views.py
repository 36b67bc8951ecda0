"""What comes before the first group and after the last: consent, practice, thanks; and studies, which bring people."""

from __future__ import annotations

from datetime import timedelta

from django.contrib import messages
from django.contrib.auth import login
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from webapp.accounts.permissions import Action, member
from webapp.campaigns.models import Project
from webapp.lib import bounds, options
from webapp.raters import gate, practice, studies, terms
from webapp.raters.forms import StudyForm
from webapp.raters.models import Participant, Practice, PracticeAnswer

SESSION = timedelta(days=1)  # of a participant: the machine may be anybody's
WORDS = {"like": True, "dislike": False}


@never_cache
@member(Action.LEARN)
def agree(request: HttpRequest, project: Project) -> HttpResponse:
    """The consent text; POST `version` agrees to that one."""
    holds = terms.current(project)
    if request.method == "POST" and holds is not None:
        try:
            number = bounds.NUMBER.of_text(request.POST.get("version"), "version")
        except bounds.OutOfBounds as error:
            messages.error(request, str(error))
            return redirect("agree", project.slug)
        if terms.agree(request.user, project, number):
            return redirect("annotate", project.slug)
        messages.warning(request, _("The text has changed meanwhile. Please read it again."))
        return redirect("agree", project.slug)
    part = Participant.objects.filter(user=request.user, project=project).exists()
    context = {"project": project, "page": "annotate", "terms": holds, "back": studies.RETURN if part else ""}
    context["agreed"] = terms.agreed(request.user, project)
    return render(request, "raters/agree.html", context)


@never_cache
@member(Action.LABEL)
def practise(request: HttpRequest, project: Project) -> HttpResponse:
    """Practice: POST `action=begin`; `action=answer` with `turn` and like or dislike for each position. `?shown=` a turn
    shows what was right there."""
    if not terms.agreed(request.user, project):
        return redirect("agree", project.slug)
    if request.method == "POST":
        try:
            if request.POST.get("action") != "answer":
                practice.begin(request.user, project)
                return redirect("practice", project.slug)
            turn = bounds.PRACTICE_GROUPS.of_text(request.POST.get("turn"), "turn")
            practice.answer(request.user, project, turn, _answer(request.POST))
            return redirect(f"{reverse('practice', args=[project.slug])}?shown={turn}")
        except (practice.PracticeError, bounds.OutOfBounds) as error:
            messages.error(request, str(error))
            return redirect("practice", project.slug)
    now = practice.standing(request.user, project)
    context = {"project": project, "page": "annotate", "standing": now}
    if shown := _shown(request, now.last):
        return render(request, "raters/practice_answer.html", context | _told(now.last, shown))
    if now.running is not None:
        return render(request, "raters/practice_group.html", context | _asked(now.running))
    if (part := gate.finish(request.user, project)) is not None and part.ending:
        return redirect("rated", project.slug)
    context["enough"] = now.open or practice.enough_gold(request.user, project)
    return render(request, "raters/practice.html", context)


def _answer(form) -> dict[int, bool]:
    """Positions to like or dislike, of the form's fields that are such."""
    found = {}
    for position in range(bounds.GROUP_SIZE.high):
        if (word := form.get(f"image-{position}", "")) in WORDS:
            found[position] = WORDS[word]
    return found


def _shown(request: HttpRequest, last: Practice | None) -> PracticeAnswer | None:
    """The answer that `?shown=` asks for."""
    text = request.GET.get("shown", "")
    if last is None or not (text.isascii() and text.isdecimal() and len(text) < 4):
        return None
    return last.answers.filter(turn=int(text)).select_related("gold").first()


def _asked(running: Practice) -> dict:
    """The group that is asked now, and how far the person is."""
    turn = practice.turn_of(running)
    group = practice.group_at(running, turn)
    right = running.answers.filter(right=True).count()
    context = {"turn": turn, "number": turn + 1, "of": len(running.asked), "right": right, "needed": running.needed}
    return context | {"group": group, "images": list(group.generations.all())}


def _told(last: Practice, said: PracticeAnswer) -> dict:
    """What was right of an answer: each image with the person's word, and the known one where there is one."""
    group = practice.group_at(last, said.turn)
    rows = [
        {
            "image": image,
            "mine": said.answer.get(str(image.position)),
            "known": said.gold.answer.get(str(image.position)),
        }
        for image in group.generations.all()
    ]
    right = last.answers.filter(right=True).count()
    about = {"turn": said.turn, "number": said.turn + 1, "of": len(last.asked), "right": right, "needed": last.needed}
    return about | {"said": said, "group": group, "rows": rows}


@never_cache
@member(Action.LABEL)
def rated(request: HttpRequest, project: Project) -> HttpResponse:
    """Thanks, and for a participant of a study the code and the way back; to the groups while there are some."""
    part = gate.finish(request.user, project)
    if part is not None and part.ending:
        code, back = studies.way_back(part)
        context = {"code": code, "back": back, "ending": part.ending, "again": studies.RETURN}
    elif (stop := gate.find_stop(request.user, project)) is None or stop.page != "rated":
        return redirect("annotate", project.slug)
    else:
        spent = bool(project.quota_all) and gate.done(request.user, project) >= project.quota_all
        context = {"tomorrow": None if spent else gate.midnight() + timedelta(days=1)}
    context |= {"project": project, "page": "annotate", "groups": gate.done(request.user, project)}
    return render(request, "raters/rated.html", context)


@never_cache
def study(request: HttpRequest, token: str) -> HttpResponse:
    """A study's link, with what Prolific adds to it; POST begins or goes on."""
    found = studies.find(token)
    if found is None:
        return render(request, "raters/study.html", {"error": _("This study does not exist.")}, status=410)
    context = {"study": found, "consent": bool(found.project.consent)}
    try:
        visit = studies.Visit.of(request.GET)
        if request.user.is_authenticated and not request.user.outside:
            said = _("You are logged in as %(name)s. Log out first: a participant has an account of their own.")
            raise studies.StudyError(said % {"name": request.user.username})
        if request.method == "POST":
            user = studies.come(found, visit)
            login(request, user, backend="django.contrib.auth.backends.ModelBackend")
            request.session.set_expiry(int(SESSION.total_seconds()))
            return redirect("annotate", found.project.slug)
        if not studies.is_back(found, visit):
            studies.check_new(found)
    except studies.StudyError as error:
        return render(request, "raters/study.html", context | {"error": str(error)}, status=403)
    return render(request, "raters/study.html", context)


@never_cache
@member(Action.PEOPLE)
def manage(request: HttpRequest, project: Project) -> HttpResponse:
    """Studies, who came, the consent's versions and the practice. POST `action=make` with the form, `close` with `id`."""
    action, shown = request.POST.get("action", ""), {}
    form = StudyForm(request.POST if action == "make" else None)
    if action == "make" and form.is_valid():
        found, token = studies.make(project, request.user, **form.cleaned_data)
        address = request.build_absolute_uri(reverse("study", args=[token]))
        shown, form = {"made": found, "link": studies.link_of(address)}, StudyForm()
    elif action == "close":
        try:
            studies.close(project, bounds.ROW.of_text(request.POST.get("id"), "id"), request.user)
        except bounds.OutOfBounds as error:
            messages.error(request, str(error))
        return redirect("studies", project.slug)
    context = {
        "project": project,
        "page": "people",
        "form": form,
        "rows": Paginator(studies.listed(project), options.ROWS).get_page(request.GET.get("page")),
        "people": Paginator(studies.participants(project), options.LONG_ROWS).get_page(request.GET.get("people")),
        "terms": terms.versions(project)[: options.ROWS],
        "practice": practice.counts(project),
        **shown,
    }
    return render(request, "raters/studies.html", context, status=400 if form.errors else 200)
