"""The themed admin for projects."""

from django.contrib import admin
from unfold.admin import ModelAdmin

from webapp.campaigns.models import AuditEntry, Membership, Project, Prompt


@admin.register(Project)
class ProjectAdmin(ModelAdmin):
    """Group size, overlap, label source, thresholds, guidelines. The active version is changed by publishing."""

    list_display = ("name", "slug", "label_source", "auto_start_after", "auto_start_by_forecast", "active_version")
    readonly_fields = ("active_version",)


@admin.register(Membership)
class MembershipAdmin(ModelAdmin):
    """Who is in which project."""

    list_display = ("user", "project", "role")
    list_filter = ("project", "role")


@admin.register(Prompt)
class PromptAdmin(ModelAdmin):
    """Prompts and their metadata."""

    list_display = ("text", "project", "split")
    list_filter = ("project", "split")
    search_fields = ("text",)


@admin.register(AuditEntry)
class AuditEntryAdmin(ModelAdmin):
    """Who changed what; nobody changes this."""

    list_display = ("created_at", "project", "user", "action")
    list_filter = ("project", "action")

    def has_add_permission(self, request) -> bool:
        """Only services write it."""
        return False

    def has_change_permission(self, request, obj=None) -> bool:
        """Append-only."""
        return False

    def has_delete_permission(self, request, obj=None) -> bool:
        """Append-only."""
        return False
