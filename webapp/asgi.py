"""HTTP by Django, live updates by Channels."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")

import django

django.setup(set_prefix=False)

from channels.auth import AuthMiddlewareStack  # noqa: E402 - apps must be loaded first
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from webapp.api.services import find_token  # noqa: E402
from webapp.dashboard.consumers import Nowhere, ProjectConsumer  # noqa: E402
from webapp.lib.handler import Handler  # noqa: E402
from webapp.lib.origins import OwnOrigins  # noqa: E402

sockets = URLRouter([path("ws/projects/<slug:slug>/", ProjectConsumer.as_asgi()), re_path("", Nowhere.as_asgi())])
application = ProtocolTypeRouter({"http": Handler(find_token), "websocket": OwnOrigins(AuthMiddlewareStack(sockets))})
