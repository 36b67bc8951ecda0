"""Every address of the app."""

from django.contrib import admin
from django.urls import path, register_converter

from webapp.api import views as api_pages
from webapp.api.endpoints import api
from webapp.campaigns import people
from webapp.campaigns import views as campaigns
from webapp.dashboard import views as dashboard
from webapp.exports import views as exports
from webapp.imports import views as imports
from webapp.labelling import views as labelling
from webapp.operations import views as operations
from webapp.quality import views as quality
from webapp.raters import sso_views as sso
from webapp.raters import views as raters
from webapp.rounds import comparison_views as comparisons
from webapp.rounds import trial_views as trials
from webapp.rounds import version_views as versions
from webapp.rounds import views as rounds


class GridName:
    """Which of a round's pictures."""

    regex = "before|after|surrogate"
    to_python = to_url = staticmethod(str)


register_converter(GridName, "grid")

urlpatterns = [
    path("", dashboard.home, name="home"),
    path("login/", people.LogIn.as_view(), name="login"),
    path("logout/", people.LogOut.as_view(), name="logout"),
    path("account/", people.account, name="account"),
    path("forgot/", people.forgot, name="forgot"),
    path("reset/<int:user_id>/<int:by_id>/<str:token>/", people.reset_password, name="reset-password"),
    path("join/<str:token>/", people.join, name="join"),
    path("sso/login/", sso.leave, name="sso-login"),
    path("sso/callback/", sso.arrive, name="sso-callback"),
    path("study/<str:token>/", raters.study, name="study"),
    path("healthz", operations.healthz, name="healthz"),
    path("readyz", operations.readyz, name="readyz"),
    path("metrics", operations.metrics, name="metrics"),
    path("admin/", admin.site.urls),
    path("api/v1/", api.urls),
    path("projects/new/", campaigns.new_project, name="new-project"),
    # a project, for its members
    path("service-worker.js", labelling.service_worker, name="service-worker"),
    path("p/<slug:slug>/app.webmanifest", labelling.app_manifest, name="app-manifest"),
    path("p/<slug:slug>/annotate/", labelling.annotate, name="annotate"),
    path("p/<slug:slug>/groups/next/", labelling.next_groups, name="next-groups"),
    path("p/<slug:slug>/groups/<slug:task>/submit/", labelling.submit, name="submit"),
    path("p/<slug:slug>/groups/<slug:task>/skip/", labelling.skip, name="skip"),
    path("p/<slug:slug>/groups/<slug:task>/flag/", labelling.flag, name="flag"),
    path("p/<slug:slug>/undo/", labelling.undo, name="undo"),
    path("p/<slug:slug>/groups/<slug:task>/<int:position>.webp", labelling.task_image, name="task-image"),
    path("p/<slug:slug>/guidelines/", labelling.guidelines, name="guidelines"),
    path("p/<slug:slug>/groups/<slug:task>/input.webp", labelling.task_input, name="task-input"),
    path("p/<slug:slug>/inputs/", campaigns.add_input, name="add-input"),
    path("p/<slug:slug>/inputs/<slug:digest>.webp", labelling.input_image, name="input-image"),
    path("p/<slug:slug>/guidelines/<int:example_id>.webp", labelling.example_image, name="example-image"),
    path("p/<slug:slug>/me/", labelling.me, name="me"),
    path("p/<slug:slug>/me/language/", labelling.language, name="language"),
    path("p/<slug:slug>/agree/", raters.agree, name="agree"),
    path("p/<slug:slug>/practice/", raters.practise, name="practice"),
    path("p/<slug:slug>/practice/<int:turn>/<int:position>.webp", labelling.practice_image, name="practice-image"),
    path("p/<slug:slug>/rated/", raters.rated, name="rated"),
    path("p/<slug:slug>/compare/", comparisons.compare, name="compare"),
    path("p/<slug:slug>/comparisons/<int:number>/next/", comparisons.next_pairs, name="next-pairs"),
    path("p/<slug:slug>/comparisons/<int:number>/vote/", comparisons.vote, name="vote"),
    path("p/<slug:slug>/pairs/<int:pair_id>/<int:position>.webp", comparisons.pair_image, name="pair-image"),
    # for reviewers and admins
    path("p/<slug:slug>/images/<int:generation_id>.webp", labelling.image, name="image"),
    path("p/<slug:slug>/flags/", labelling.flags, name="flags"),
    path("p/<slug:slug>/", dashboard.dashboard, name="dashboard"),
    path("p/<slug:slug>/gallery/", dashboard.images, name="gallery"),
    path("p/<slug:slug>/gallery/download/", dashboard.images_download, name="gallery-download"),
    path("p/<slug:slug>/groups/<int:group_id>/retry/", dashboard.retry_group, name="retry-group"),
    path("p/<slug:slug>/series/", dashboard.series, name="dashboard-series"),
    path("p/<slug:slug>/people/", people.people, name="people"),
    path("p/<slug:slug>/studies/", raters.manage, name="studies"),
    path("p/<slug:slug>/settings/", campaigns.project_settings, name="project-settings"),
    path("p/<slug:slug>/prompts/", campaigns.prompts, name="prompts"),
    path("p/<slug:slug>/clone/", campaigns.clone, name="clone-project"),
    path("p/<slug:slug>/ask-oracle/", labelling.ask_oracle_again, name="ask-oracle-again"),
    path("p/<slug:slug>/oracle-threshold/", labelling.oracle_threshold, name="oracle-threshold"),
    path("p/<slug:slug>/archive/", campaigns.archive, name="archive-project"),
    path("p/<slug:slug>/audit/", campaigns.audit_log, name="audit-log"),
    path("p/<slug:slug>/export/", exports.export_page, name="export"),
    path("p/<slug:slug>/export/download/", exports.download, name="export-download"),
    path("p/<slug:slug>/import/", exports.import_labels, name="import-labels"),
    path("p/<slug:slug>/own-images/", imports.own_images, name="own-images"),
    path("p/<slug:slug>/api/", api_pages.access, name="api-access"),
    path("p/<slug:slug>/quality/", quality.quality, name="quality"),
    path("p/<slug:slug>/quality/agreement/", quality.agreement, name="quality-agreement"),
    path("p/<slug:slug>/review/", quality.review_list, name="review-list"),
    path("p/<slug:slug>/review/<int:group_id>/", quality.review, name="review"),
    path("p/<slug:slug>/review/<int:group_id>/gold/", quality.gold, name="gold"),
    path("p/<slug:slug>/rounds/start/", rounds.start, name="start-round"),
    path("p/<slug:slug>/rounds/plan/", rounds.plan, name="round-plan"),
    path("p/<slug:slug>/rounds/card/", rounds.card, name="round-card"),
    path("p/<slug:slug>/rounds/memory/", rounds.round_memory, name="round-memory"),
    path("p/<slug:slug>/rounds/<int:number>/", rounds.detail, name="round"),
    path("p/<slug:slug>/rounds/<int:number>/metrics/", rounds.metrics, name="round-metrics"),
    path("p/<slug:slug>/rounds/<int:number>/cancel/", rounds.cancel, name="cancel-round"),
    path("p/<slug:slug>/rounds/<int:number>/<grid:which>.webp", rounds.grid, name="round-grid"),
    path("p/<slug:slug>/versions/", versions.versions, name="versions"),
    path("p/<slug:slug>/versions/scores/", versions.version_scores, name="version-scores"),
    path("p/<slug:slug>/versions/<int:number>/lora/", versions.download_lora, name="download-lora"),
    path("p/<slug:slug>/versions/<int:number>/package/", versions.download_package, name="download-package"),
    path("p/<slug:slug>/versions/<int:number>/share/", versions.share_version, name="share-version"),
    path("p/<slug:slug>/comparisons/", comparisons.start_comparison, name="start-comparison"),
    path("p/<slug:slug>/comparisons/<int:number>/", comparisons.comparison, name="comparison"),
    path("p/<slug:slug>/comparisons/<int:number>/stop/", comparisons.stop_comparison, name="stop-comparison"),
    path("p/<slug:slug>/try/", trials.try_it, name="try"),
    path("p/<slug:slug>/try/start/", trials.start, name="start-trial"),
    path("p/<slug:slug>/try/<int:trial_id>/", trials.trial, name="trial"),
    path("p/<slug:slug>/try/<int:trial_id>/cancel/", trials.cancel, name="cancel-trial"),
    path("p/<slug:slug>/try/<int:trial_id>/prompt/", trials.add_prompt, name="trial-prompt"),
    path("p/<slug:slug>/try/<int:trial_id>/<int:column>-<int:row>.webp", trials.image, name="trial-image"),
    path("p/<slug:slug>/versions/<int:version_id>/decide/", rounds.decide, name="decide-version"),
]
