"""Every address of the app."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import path, register_converter

from webapp.accounts import views as accounts
from webapp.dashboard import views as dashboard
from webapp.labelling import views as labelling
from webapp.operations import views as operations
from webapp.rounds import views as rounds


class GridName:
    """Which of a round's two pictures."""

    regex = "before|after"
    to_python = to_url = staticmethod(str)


register_converter(GridName, "grid")

urlpatterns = [
    path("", dashboard.home, name="home"),
    path("login/", auth.LoginView.as_view(template_name="accounts/login.html"), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("join/<str:token>/", accounts.join, name="join"),
    path("healthz", operations.healthz, name="healthz"),
    path("readyz", operations.readyz, name="readyz"),
    path("metrics", operations.metrics, name="metrics"),
    path("admin/", admin.site.urls),
    # a project, for its members
    path("p/<slug:slug>/annotate/", labelling.annotate, name="annotate"),
    path("p/<slug:slug>/groups/next/", labelling.next_groups, name="next-groups"),
    path("p/<slug:slug>/groups/<int:group_id>/submit/", labelling.submit, name="submit"),
    path("p/<slug:slug>/groups/<int:group_id>/skip/", labelling.skip, name="skip"),
    path("p/<slug:slug>/groups/<int:group_id>/flag/", labelling.flag, name="flag"),
    path("p/<slug:slug>/undo/", labelling.undo, name="undo"),
    path("p/<slug:slug>/images/<int:generation_id>.webp", labelling.image, name="image"),
    path("p/<slug:slug>/guidelines/", labelling.guidelines, name="guidelines"),
    path("p/<slug:slug>/me/", labelling.me, name="me"),
    path("p/<slug:slug>/me/language/", labelling.language, name="language"),
    # for reviewers and admins
    path("p/<slug:slug>/flags/", labelling.flags, name="flags"),
    path("p/<slug:slug>/", dashboard.dashboard, name="dashboard"),
    path("p/<slug:slug>/groups/<int:group_id>/retry/", dashboard.retry_group, name="retry-group"),
    path("p/<slug:slug>/people/", accounts.people, name="people"),
    path("p/<slug:slug>/rounds/start/", rounds.start, name="start-round"),
    path("p/<slug:slug>/rounds/<int:number>/", rounds.detail, name="round"),
    path("p/<slug:slug>/rounds/<int:number>/metrics/", rounds.metrics, name="round-metrics"),
    path("p/<slug:slug>/rounds/<int:number>/cancel/", rounds.cancel, name="cancel-round"),
    path("p/<slug:slug>/rounds/<int:number>/<grid:which>.webp", rounds.grid, name="round-grid"),
    path("p/<slug:slug>/versions/<int:version_id>/decide/", rounds.decide, name="decide-version"),
]
