"""The live socket of a project: tells open pages that something changed."""

from __future__ import annotations

import asyncio
import logging
from importlib import import_module
from types import SimpleNamespace

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user

from webapp.accounts.permissions import Action, may
from webapp.campaigns.models import Project
from webapp.lib.broker import person_channel, project_channel

log = logging.getLogger(__name__)
CHECKED_EVERY = 30  # seconds after which a socket asks again whether it may stay, should nobody tell it


class ProjectConsumer(AsyncJsonWebsocketConsumer):
    """Sends `{event, …}` notices to whom the table lets see what they are of; takes nothing."""

    action = Action.SEE

    async def connect(self):
        """Whoever may see it; others are refused with 4403."""
        project = await self._project()
        if project is None:
            await self.close(code=4403)
            return
        groups = (project_channel(project.pk), person_channel(self.scope["user"].pk))
        try:
            for group in groups:
                await self.channel_layer.group_add(group, self.channel_name)
        except Exception as error:  # whatever the broker's client raises; the page comes again
            log.warning("no live updates for project %s: %s", project.pk, error)
            await self.close(code=1013)
            return
        self.listening = groups
        await self.accept()
        self.watch = asyncio.create_task(self._watch())

    async def disconnect(self, code):
        """Leave the groups."""
        if hasattr(self, "watch"):
            self.watch.cancel()
            for group in self.listening:
                await self.channel_layer.group_discard(group, self.channel_name)

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
