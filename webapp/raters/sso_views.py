"""Logging in at another site by OpenID Connect: the way there and the way back. allauth's own pages are not mounted."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from webapp.campaigns.membership import find_invitation
from webapp.raters import oidc, sign_in

LOGIN, CONNECT = "login", "connect"


@never_cache
@require_POST
def leave(request: HttpRequest) -> HttpResponse:
    """To the issuer: `next` says where to go on, `invitation` has one's token. `process=connect` with `password` adds the
    issuer to one's account, `disconnect` takes it away."""
    try:
        process = request.POST.get("process") or LOGIN
        if process != LOGIN:
            return _of_account(request, process)
        token = request.POST.get("invitation", "")[:100]
        address = oidc.leave(request, LOGIN, next_url=_own(request, request.POST.get("next", "")), invitation=token)
    except oidc.Refused as error:
        return _refused(request, error)
    return render(request, "accounts/sso_leave.html", {"address": address, "name": settings.LIKESTEP_OIDC.name})


def _of_account(request: HttpRequest, process: str) -> HttpResponse:
    user = request.user
    if not user.is_authenticated or user.outside:
        raise oidc.Refused(_("Log in first."))
    if not user.check_password(request.POST.get("password", "")):
        messages.error(request, _("The password is wrong."))
        return redirect("account")
    if process != CONNECT:
        sign_in.disconnect(user)
        messages.success(request, _("You log in with your password alone now."))
        return redirect("account")
    address = oidc.leave(request, CONNECT, user=user.pk)
    return render(request, "accounts/sso_leave.html", {"address": address, "name": settings.LIKESTEP_OIDC.name})


@never_cache
@require_GET
def arrive(request: HttpRequest) -> HttpResponse:
    """Back from the issuer."""
    try:
        arrival = oidc.arrive(request)
        if arrival.process == CONNECT:
            if not request.user.is_authenticated or request.user.pk != arrival.data.get("user"):
                raise oidc.Refused(_("Log in first."))
            sign_in.connect(request.user, arrival.claims)
            messages.success(request, _("You may log in this way from now on."))
            return redirect("account")
        invitation = str(arrival.data.get("invitation") or "")
        user = sign_in.enter(arrival.claims, invitation=invitation)
    except oidc.Refused as error:
        return _refused(request, error)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    if invitation and find_invitation(invitation) is not None:  # they have an account already: they are asked
        return redirect("join", invitation)
    return redirect(_own(request, arrival.next) or resolve_url(settings.LOGIN_REDIRECT_URL))


def _own(request: HttpRequest, address: str) -> str:
    """The address if it is one of ours, else nothing."""
    ours = url_has_allowed_host_and_scheme(address, {request.get_host()}, require_https=request.is_secure())
    return address if ours else ""


def _refused(request: HttpRequest, error: oidc.Refused) -> HttpResponse:
    return render(request, "accounts/sso_refused.html", {"error": str(error)}, status=403)
