"""An instance of this bench's own: the web server on an empty database, with people who label."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.abuse import Instance
from bench.load.assignment import prepare
from tests.servers import serve, temporary_folder

PEOPLE, GROUPS, SLUG = 50, 60, "demo"


@contextmanager
def running(database: str) -> Iterator[Instance]:
    """The instance, on "sqlite" or "postgresql"; gone afterwards. Once a process, since Django is set up for it."""
    os.environ["STATIC_ROOT"] = str(temporary_folder("bench-static"))
    passwords = {name: secrets.token_hex(8) for name in ("annotator", "admin")}
    with ExitStack() as stack:
        for end in prepare(sqlite=database == "sqlite"):
            stack.callback(end)
        people = filled(passwords)
        logging.getLogger("websockets").setLevel(logging.CRITICAL)  # it tells of each connection that is cut
        log = temporary_folder("bench-log") / "web.log"
        server = stack.enter_context(serve(log, ALLOWED_HOSTS="localhost,127.0.0.1"))
        yield Instance(f"http://127.0.0.1:{server}", SLUG, passwords, people, serving(server))


def filled(passwords: dict[str, str]) -> list[dict[str, str]]:
    """A project whose groups wait for everybody; the headers of its PEOPLE's browsers."""
    from django.core.management import call_command
    from django.db import connections
    from django.test import Client

    from tests.webapp.conftest import make_ready
    from webapp.accounts.models import User
    from webapp.campaigns.models import Membership, Role
    from webapp.campaigns.services import create_project

    call_command("collectstatic", verbosity=0)
    prompts = [{"prompt": f"{n} moons"} for n in range(GROUPS)]
    about = {"model_dir": "x", "student_dir": "x", "group_size": 4, "overlap": PEOPLE}
    project = create_project(SLUG, "Demo", prompts=prompts, **about)
    roles = {"annotator": Role.ANNOTATOR, "admin": Role.ADMIN}
    for name, password in passwords.items():
        user = User.objects.create_user(name, password=password)
        Membership.objects.create(user=user, project=project, role=roles[name])
    make_ready(project, GROUPS)
    found = []
    for number in range(PEOPLE):
        user = User.objects.create(username=f"person {number}", password="!")
        Membership.objects.create(user=user, project=project, role=Role.ANNOTATOR)
        browser, csrf = Client(), secrets.token_hex(16)
        browser.force_login(user)
        cookie = f"sessionid={browser.cookies['sessionid'].value}; csrftoken={csrf}"
        found.append({"Cookie": cookie, "X-CSRFToken": csrf})
    connections.close_all()
    return found


def serving(port: int) -> int | None:
    """The process that listens there."""
    import psutil

    for child in psutil.Process().children():
        if any(found.laddr.port == port for found in child.net_connections()):
            return child.pid
    return None
