"""Who changed what: one row a change, written in the transaction of the change."""

from __future__ import annotations

from webapp.campaigns.models import AuditEntry, Project


def audit(project: Project, user, action: str, **detail) -> None:
    """Note who did what; call it in the transaction of the change."""
    AuditEntry.objects.create(project=project, user=user, action=action, detail=detail)
