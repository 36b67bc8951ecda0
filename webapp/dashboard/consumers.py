"""The live socket of a project: tells open pages that something changed."""

from __future__ import annotations

import logging

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from webapp.accounts.permissions import may
from webapp.campaigns.models import Project, Role
from webapp.lib.broker import project_channel

log = logging.getLogger(__name__)


class ProjectConsumer(AsyncJsonWebsocketConsumer):
    """Sends `{event, …}` notices to members; takes nothing."""

    async def connect(self):
        """Members only; others are refused with 4403."""
        project = await self._project()
        if project is None:
            await self.close(code=4403)
            return
        group = project_channel(project.pk)
        try:
            await self.channel_layer.group_add(group, self.channel_name)
        except Exception as error:  # whatever the broker's client raises; the page comes again
            log.warning("no live updates for project %s: %s", project.pk, error)
            await self.close(code=1013)
            return
        self.group = group
        await self.accept()

    async def disconnect(self, code):
        """Leave the group."""
        if hasattr(self, "group"):
            await self.channel_layer.group_discard(self.group, self.channel_name)

    async def notice(self, message):
        """Pass a notice on."""
        await self.send_json({k: v for k, v in message.items() if k != "type"})

    @database_sync_to_async
    def _project(self) -> Project | None:
        project = Project.objects.filter(slug=self.scope["url_route"]["kwargs"]["slug"]).first()
        return project if project is not None and may(self.scope["user"], project, Role.ANNOTATOR) else None
