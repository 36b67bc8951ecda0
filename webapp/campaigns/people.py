"""Joining by invitation, and the people of a project."""

from __future__ import annotations

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import PasswordChangeForm, PasswordResetForm, SetPasswordForm, UserCreationForm
from django.contrib.auth.views import LoginView, LogoutView
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache

from webapp.accounts.models import User
from webapp.accounts.permissions import Action, may, member, role_in
from webapp.campaigns import membership as campaign
from webapp.campaigns import passwords, queries
from webapp.campaigns.models import Project, Role
from webapp.campaigns.services import CampaignError
from webapp.lib import events, options


class LogIn(LoginView):
    """By name and password; the page also leads to the other site by which people may log in."""

    template_name = "accounts/login.html"

    def get_context_data(self, **values) -> dict:
        """Adds that site."""
        return super().get_context_data(**values) | {"sso": settings.LIKESTEP_OIDC}


class LogOut(LogoutView):
    """Also closes what the session held open, once it has ended."""

    def post(self, request: HttpRequest, *arguments, **values) -> HttpResponse:
        """Ends the session."""
        user_id = request.user.pk
        response = super().post(request, *arguments, **values)
        if user_id is not None:
            events.check_again(user_id)
        return response


class JoinForm(UserCreationForm):
    """A name and a password."""

    class Meta:
        model = User
        fields = ("username",)
        widgets = {"username": forms.TextInput(attrs={"dir": "auto"})}


@never_cache
def join(request: HttpRequest, token: str) -> HttpResponse:
    """Accept an invitation with the account one is logged in with, or with a new one. A member is told what the link would
    change, and a link that would change nothing is not used."""
    invitation = campaign.find_invitation(token)
    if invitation is None:
        return render(request, "accounts/join_expired.html", status=410)
    known = request.user.is_authenticated
    role = role_in(request.user, invitation.project) if known else None
    gains = not known or campaign.role_gained(invitation, request.user) is not None
    form = JoinForm(request.POST or None)
    context = {"invitation": invitation, "form": form, "known": known, "gains": gains}
    context["role"] = Role(role).label if role else ""
    context |= {"sso": settings.LIKESTEP_OIDC, "token": token}
    if request.method == "POST" and (known or form.is_valid()):
        try:
            user = campaign.accept_invitation(token, request.user if known else form.save).user
        except CampaignError as error:
            return render(request, "accounts/join.html", context | {"error": str(error), "gains": False}, status=410)
        if not known:
            login(request, user, backend="django.contrib.auth.backends.ModelBackend")
        return redirect("annotate", invitation.project.slug)
    return render(request, "accounts/join.html", context)


class AddressForm(forms.Form):
    """One's mail address, which can set the password: so the password is asked for."""

    email = forms.EmailField(required=False, label=gettext_lazy("Mail address"))
    password = forms.CharField(
        label=gettext_lazy("Password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def __init__(self, user: User, data=None):
        super().__init__(data, initial={"email": user.email})
        self.user = user

    def clean_password(self) -> str:
        """Raises ValidationError for a wrong one."""
        if not self.user.check_password(self.cleaned_data["password"]):
            raise forms.ValidationError(_("The password is wrong."))
        return self.cleaned_data["password"]


@never_cache
@login_required
def account(request: HttpRequest) -> HttpResponse:
    """One's password and mail address. POST `action=password` ends all other sessions and the API tokens; `address`."""
    if request.user.outside:  # who has no password of ours
        raise Http404
    action = request.POST.get("action", "")
    password = PasswordChangeForm(request.user, request.POST if action == "password" else None)
    address = AddressForm(request.user, request.POST if action == "address" else None)
    if action == "password" and password.is_valid():
        password.save()
        update_session_auth_hash(request, request.user)
        messages.success(request, _("Your password is changed. Other sessions and your API tokens have ended."))
        return redirect("account")
    if action == "address" and settings.EMAIL_HOST and address.is_valid():
        request.user.email = address.cleaned_data["email"]
        request.user.save(update_fields=["email"])
        messages.success(request, _("Your mail address is saved."))
        return redirect("account")
    context = {"password": password, "address": address if settings.EMAIL_HOST else None, "page": "account"}
    context["sso"] = settings.LIKESTEP_OIDC
    context["connected"] = bool(settings.LIKESTEP_OIDC) and request.user.socialaccount_set.exists()
    return render(request, "accounts/account.html", context, status=400 if action else 200)


@never_cache
def forgot(request: HttpRequest) -> HttpResponse:
    """Ask for a link by mail, where the server sends mail; it tells nobody which addresses it knows."""
    form, sent = PasswordResetForm(request.POST or None), False
    if request.method == "POST" and settings.EMAIL_HOST and form.is_valid():
        for user in form.get_users(form.cleaned_data["email"]):
            if not passwords.mailed_lately(user):
                passwords.mail_link(user, _reset_link(request, user, user, passwords.Links(user).make_token(user)))
        sent = True
    return render(request, "accounts/forgot.html", {"form": form if settings.EMAIL_HOST else None, "sent": sent})


@never_cache
def reset_password(request: HttpRequest, user_id: int, by_id: int, token: str) -> HttpResponse:
    """Set a new password with a link that works once."""
    user = passwords.owner_of(user_id, by_id, token)
    if user is None:
        return render(request, "accounts/reset_expired.html", status=410)
    form = SetPasswordForm(user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        if not passwords.set_by_link(user_id, by_id, token, form):
            return render(request, "accounts/reset_expired.html", status=410)
        messages.success(request, _("Your new password is kept. Log in with it."))
        return redirect("login")
    return render(request, "accounts/reset.html", {"form": form, "name": user.username})


def _reset_link(request: HttpRequest, user: User, by: User, token: str) -> str:
    return request.build_absolute_uri(reverse("reset-password", args=[user.pk, by.pk, token]))


@never_cache
@member(Action.PEOPLE)
def people(request: HttpRequest, project: Project) -> HttpResponse:
    """Members, what they did, and invitations. POST `action=invite` with `role`, `role` with `id` and `role`, `revoke`,
    `remove` or `password` with `id`."""
    shown = {}
    if request.method == "POST":
        try:
            shown = _change(request, project)
        except CampaignError as error:
            messages.error(request, str(error))
        if not may(request.user, project, Action.PEOPLE):  # they changed their own role, or left
            return redirect("home")
        if not shown:
            return redirect("people", project.slug)
    members = project.memberships.select_related("user").order_by("user__username")
    rows = Paginator(members, options.LONG_ROWS).get_page(request.GET.get("page"))
    left = Paginator(queries.who_left(project), options.LONG_ROWS).get_page(request.GET.get("left"))
    done = queries.activity(project, [m.user_id for m in rows] + [user.pk for user in left])
    for m in rows:
        m.done = done[m.user_id]
    for user in left:
        user.done = done[user.pk]
    invitations = campaign.open_invitations(project)
    context = {
        "project": project,
        "rows": rows,
        "left": left,
        "invitations": Paginator(invitations, options.LONG_ROWS).get_page(request.GET.get("invitations")),
        "roles": Role.choices,
        "page": "people",
        **shown,
    }
    return render(request, "accounts/people.html", context)


def _change(request: HttpRequest, project: Project) -> dict:
    """Carries out what the form asks for; the `link` of an invitation, or the `reset` of a password, that is shown once."""
    action, number = request.POST.get("action", ""), request.POST.get("id", "")
    if action == "invite":
        token = campaign.invite(project, request.POST.get("role", ""), request.user)
        return {"link": request.build_absolute_uri(reverse("join", args=[token]))}
    if not (number.isascii() and number.isdecimal() and int(number[:20]) <= passwords.HIGHEST):
        raise Http404
    if action == "password":
        user, token = passwords.hand_out(project, int(number), request.user)
        link = _reset_link(request, user, request.user, token)
        return {"reset": link, "reset_name": user.username, "reset_mailed": passwords.mail_link(user, link)}
    if action == "revoke":
        campaign.revoke_invitation(project, int(number), request.user)
    elif action == "role":
        if changed := campaign.change_role(project, int(number), request.POST.get("role", ""), request.user):
            about = {"name": changed.user.username, "role": changed.get_role_display()}
            messages.success(request, _("%(name)s has this role now: %(role)s.") % about)
    elif action == "remove":
        if gone := campaign.remove_member(project, int(number), request.user):
            said = _("%(name)s is no member any more. Labels that they gave stay and count.")
            messages.success(request, said % {"name": gone.user.username})
    else:
        raise Http404
    return {}
