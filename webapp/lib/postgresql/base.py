"""The name of this file and of its class are those by which Django finds a database backend."""

from __future__ import annotations

import select

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """See the package."""

    def is_usable(self) -> bool:
        """Whether the connection can still be used; asked before each request's first query.

        A server that ends a connection says so on it, and says nothing else unasked but rare notices. So silence is a yes;
        only after an error, or when something has come, is the server asked, as Django does each time.
        """
        if self.connection is None or self.connection.closed:
            return False
        if self.errors_occurred or _has_come(self.connection.fileno()):
            return super().is_usable()
        return True


def _has_come(socket: int) -> bool:
    """Whether there is something to be read, the end of the connection included."""
    asked = select.poll()
    asked.register(socket, select.POLLIN)
    return bool(asked.poll(0))
