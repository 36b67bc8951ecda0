"""The live socket of a project: tells open pages that something changed."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from importlib import import_module
from types import SimpleNamespace

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user

from webapp.accounts.permissions import Action, may
from webapp.campaigns.models import Project
from webapp.lib.broker import person_channel, project_channel

log = logging.getLogger(__name__)
CHECKED_EVERY = 30  # seconds after which a socket asks again whether it may stay, should nobody tell it
HEARD = 20  # messages of a page, which has nothing to say, before its socket is closed
_open: Counter[int] = Counter()  # sockets of this process by person


class ProjectConsumer(AsyncJsonWebsocketConsumer):
    """Sends `{event, …}` notices to whom the table lets see what they are of; what comes in is not looked at."""

    action = Action.SEE
    person, heard = None, 0

    async def connect(self):
        """Whoever may see it, with at most LIKESTEP_SOCKETS each; others are refused."""
        project = await self._project()
        if project is None:
            await self.close(code=4403)
            return
        person = self.scope["user"].pk
        if _open[person] >= settings.LIKESTEP_SOCKETS:
            await self.close(code=4429)
            return
        self.person = person
        _open[person] += 1
        groups = (project_channel(project.pk), person_channel(person))
        try:
            for group in groups:
                await self.channel_layer.group_add(group, self.channel_name)
        except Exception as error:  # whatever the broker's client raises; the page comes again
            log.warning("no live updates for project %s: %s", project.pk, error)
            self._uncount()
            await self.close(code=1013)
            return
        self.listening = groups
        await self.accept()
        self.watch = asyncio.create_task(self._watch())

    async def disconnect(self, code):
        """Leave the groups."""
        self._uncount()
        if hasattr(self, "watch"):
            self.watch.cancel()
            for group in self.listening:
                await self.channel_layer.group_discard(group, self.channel_name)

    def _uncount(self) -> None:
        if self.person is not None:
            _open[self.person] -= 1
            if not _open[self.person]:
                del _open[self.person]
            self.person = None

    async def receive(self, text_data=None, bytes_data=None, **kwargs):
        """Ignored; who goes on is let go."""
        self.heard += 1
        if self.heard == HEARD:
            await self.close(code=1008)

    async def notice(self, message):
        """Pass a notice on."""
        await self.send_json({k: v for k, v in message.items() if k != "type"})

    async def check(self, message):
        """Close with 4403 once the session has ended or the person may not see the project any more."""
        if await self._project() is None:
            await self.close(code=4403)

    async def _watch(self):
        while True:
            await asyncio.sleep(CHECKED_EVERY)
            await self.check({})

    @database_sync_to_async
    def _project(self) -> Project | None:
        """The project, if the person whose session this is, as it is now, may see it."""
        store = import_module(settings.SESSION_ENGINE).SessionStore
        user = get_user(SimpleNamespace(session=store(self.scope["session"].session_key)))
        project = Project.objects.filter(slug=self.scope["url_route"]["kwargs"]["slug"]).first()
        return project if project is not None and may(user, project, self.action) else None


class Nowhere(AsyncWebsocketConsumer):
    """Any other address: refused."""

    async def connect(self):
        """Close it."""
        await self.close(code=4404)
