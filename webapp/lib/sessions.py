"""Sessions in the database, as Django's; their query is compiled once."""

from __future__ import annotations

from datetime import datetime

from django.contrib.sessions.backends import db
from django.contrib.sessions.models import Session
from django.utils import timezone

from webapp.lib.prepared import ask


class SessionStore(db.SessionStore):
    """See the module."""

    def _get_session_from_db(self):
        found = ask("session", _sessions, key=self.session_key or "", now=timezone.now())
        if not found:
            self._session_key = None
            return None
        return found[0]


def _sessions(key: str, now: datetime):
    return Session.objects.filter(session_key=key, expire_date__gt=now)
