"""Who changed what: one row a change, written in the transaction of the change."""

from __future__ import annotations

from webapp.campaigns.models import AuditEntry, Project
from webapp.lib import bounds


def audit(project: Project, user, action: str, **detail) -> None:
    """Note who did what; call it in the transaction of the change."""
    AuditEntry.objects.create(
        project=project, user=user, action=action, detail={k: _short(v) for k, v in detail.items()}
    )


def _short(value: object) -> object:
    """A value as the log has it: of a long text, such as guidelines, only how it begins."""
    if isinstance(value, str) and len(value) > bounds.DETAIL:
        return f"{value[: bounds.DETAIL]}…"
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    return [_short(inner) for inner in value] if isinstance(value, list | tuple) else value
