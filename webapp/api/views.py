"""The page where tokens and webhooks are made."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from webapp.accounts.permissions import Action, may, member
from webapp.api import services
from webapp.api.models import Delivery, Scope
from webapp.campaigns.models import Project
from webapp.lib import bounds, options
from webapp.webhooks.events import EVENTS


@never_cache
@member(Action.TOKENS)
def access(request: HttpRequest, project: Project) -> HttpResponse:
    """One's own tokens; an admin also sees everybody's, and the webhooks. A new token or secret is shown this once."""
    is_admin = may(request.user, project, Action.HOOKS)
    context: dict = {"project": project, "page": "api"}
    status = 200
    if request.method == "POST":
        try:
            shown = _change(request, project, is_admin)
        except services.ApiError as error:
            context["error"], status = str(error), 400
        else:
            if shown is None:
                return redirect("api-access", project.slug)
            context |= shown
    tokens = project.api_tokens.filter(revoked_at=None).select_related("user")
    tokens = tokens if is_admin else tokens.filter(user=request.user)
    webhooks = project.webhooks.all() if is_admin else project.webhooks.none()
    deliveries = Delivery.objects.filter(webhook__in=webhooks)
    context |= {
        "tokens": Paginator(tokens, options.ROWS).get_page(request.GET.get("page")),
        "scopes": [(v, label) for v, label in Scope.choices if may(request.user, project, services.FIRST[v])],
        "is_admin": is_admin,
        "webhooks": Paginator(webhooks, options.ROWS).get_page(request.GET.get("webhooks")),
        "deliveries": Paginator(deliveries, options.ROWS).get_page(request.GET.get("messages")),
        "events": EVENTS.values(),
    }
    return render(request, "api/access.html", context, status=status)


def _change(request: HttpRequest, project: Project, is_admin: bool) -> dict | None:
    """What a new token or webhook shows once; None when the page has nothing new to tell."""
    action, form = request.POST.get("action", ""), request.POST
    if action == "token":
        token, text = services.create_token(project, request.user, form.get("name", ""), form.getlist("scopes"))
        return {"token": token, "token_text": text}
    if action == "revoke":
        services.revoke_token(project, _whole(form, "id"), request.user)
        return None
    if not is_admin:
        raise services.ApiError(_("webhooks: only an admin of the project may change them"))
    if action == "webhook":
        every = _whole(form, "every", bounds.EVERY) if "every" in form else 100
        url, events = form.get("url", "").strip(), form.getlist("events")
        made = services.create_webhook(project, url, events, request.user, every=every)
        return {"webhook": made}
    if action == "remove-webhook":
        services.delete_webhook(project, _whole(form, "id"), request.user)
        return None
    raise services.ApiError(_("action: send token, revoke, webhook or remove-webhook"))


def _whole(form, name: str, kind: bounds.Range = bounds.ROW) -> int:
    """A whole number of the form; by default a row's."""
    try:
        return kind.of_text(form.get(name), name)
    except bounds.OutOfBounds as error:
        raise services.ApiError(str(error)) from error
