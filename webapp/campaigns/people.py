"""Joining by invitation, and the people of a project."""

from __future__ import annotations

from django.contrib.auth import login
from django.contrib.auth.forms import UserCreationForm
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from webapp.accounts.models import User
from webapp.accounts.permissions import member
from webapp.campaigns import services
from webapp.campaigns.models import Project, Role

PAGE = 100


class JoinForm(UserCreationForm):
    """A name and a password."""

    class Meta:
        model = User
        fields = ("username",)


def join(request: HttpRequest, token: str) -> HttpResponse:
    """Accept an invitation with the account one is logged in with, or with a new one."""
    invitation = services.find_invitation(token)
    if invitation is None:
        return render(request, "accounts/join_expired.html", status=410)
    known = request.user.is_authenticated
    form = JoinForm(request.POST or None)
    if request.method == "POST" and (known or form.is_valid()):
        user = request.user if known else form.save()
        try:
            services.accept_invitation(token, user)
        except services.CampaignError:
            return render(request, "accounts/join_expired.html", status=410)
        if not known:
            login(request, user, backend="django.contrib.auth.backends.ModelBackend")
        return redirect("annotate", invitation.project.slug)
    return render(request, "accounts/join.html", {"invitation": invitation, "form": form, "known": known})


@member(Role.ADMIN)
def people(request: HttpRequest, project: Project) -> HttpResponse:
    """Members, and new invitation links."""
    link = None
    if request.method == "POST":
        role = request.POST.get("role", "")
        if role not in Role.values:
            raise Http404
        link = request.build_absolute_uri(reverse("join", args=[services.invite(project, role, request.user)]))
    members = project.memberships.select_related("user").order_by("user__username")
    context = {
        "project": project,
        "rows": Paginator(members, PAGE).get_page(request.GET.get("page")),
        "roles": Role.choices,
        "link": link,
        "page": "people",
    }
    return render(request, "accounts/people.html", context)
