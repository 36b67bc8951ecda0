"""Label Studio for `http_load.py`: installed by the bench into a virtual environment of its own, on a PostgreSQL of the
same kind (`bench.postgres`), asked by its documented API. It never touches this project's environment or requirements."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import venv
from pathlib import Path

from bench.load.http_load import IMAGES, Annotator, Http, checked, postmaster
from bench.postgres import Postgres
from tests.servers import free_port, wait_for

PACKAGES = ("label-studio==1.23.2", "gunicorn==27.0.1")
CONFIG = "".join(
    ["<View><Text name='prompt' value='$prompt'/>"]
    + [
        f"<Image name='image{i}' value='$image{i}'/><Choices name='choice{i}' toName='image{i}' choice='single'>"
        "<Choice value='like'/><Choice value='dislike'/></Choices>"
        for i in range(IMAGES)
    ]
    + ["</View>"]
)
PEOPLE = """
import json
from organizations.models import Organization
from rest_framework.authtoken.models import Token
from users.models import User
users = [User.objects.create_user(email=f"load{n}@example.org", password="load-%d-password" % n) for n in range(PEOPLE)]
organization = Organization.create_organization(created_by=users[0], title="load")
organization.jwt.legacy_api_tokens_enabled = True
organization.jwt.save()
for user in users:
    organization.add_user(user)
    user.active_organization = organization
    user.save()
print("TOKENS", json.dumps([Token.objects.get_or_create(user=user)[0].key for user in users]))
"""


class LabelStudio:
    """A server of `processes` processes with a project of `tasks` tasks, each for two people, as ours are."""

    name = "Label Studio"

    def __init__(self, folder: Path, environment: Path, people: int, tasks: int, processes: int):
        self.folder, self.port = folder, free_port()
        self.python = _installed(environment)
        self.postgres = Postgres(folder / "postgres")
        self.postgres.psql("CREATE DATABASE labelstudio;")
        self.code = next(environment.glob("lib/python*/site-packages/label_studio"))
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("DJANGO", "DATABASE", "REDIS", "SECRET"))},
            "DJANGO_SETTINGS_MODULE": "core.settings.label_studio",
            "DJANGO_DB": "default",
            "POSTGRE_NAME": "labelstudio",
            "POSTGRE_USER": "postgres",
            "POSTGRE_PASSWORD": "",
            "POSTGRE_HOST": str(folder / "postgres"),
            "BASE_DATA_DIR": str(folder / "data"),
            "DEBUG": "false",
            "LOG_LEVEL": "ERROR",
            "COLLECT_ANALYTICS": "false",
            "SENTRY_DSN": "",
        }
        (folder / "data").mkdir()
        self._manage("migrate", "--verbosity", "0")
        said = self._manage("shell", "-c", PEOPLE.replace("PEOPLE", str(people)))
        tokens = json.loads(next(line for line in said.splitlines() if line.startswith("TOKENS "))[7:])
        self.process = self._serve(processes)
        self.project = self._project(Http(self.port, _authorized(tokens[0])), tasks)
        self.people = [Annotator(Http(self.port, _authorized(token)), self._next, self._annotate) for token in tokens]

    def _manage(self, *arguments: str) -> str:
        run = subprocess.run(
            [self.python, "manage.py", *arguments], cwd=self.code, env=self.environment, capture_output=True, text=True
        )
        if run.returncode:
            raise RuntimeError(f"Label Studio: {arguments[0]} failed: {run.stderr[-2000:]}")
        return run.stdout

    def _serve(self, processes: int) -> subprocess.Popen:
        command = [self.python, "-m", "gunicorn", "core.wsgi", "--bind", f"127.0.0.1:{self.port}", "--timeout", "120"]
        command += ["--workers", str(processes), "--threads", "8", "--keep-alive", "75"]
        with (self.folder / "server.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=self.code, env=self.environment, stdout=log, stderr=log)

        def up() -> bool:
            try:
                return Http(self.port, {}).ask("GET", "/health")[0] == 200
            except OSError:
                return False

        if not wait_for(up, 300):
            process.terminate()
            raise RuntimeError("Label Studio did not come up: " + (self.folder / "server.log").read_text()[-2000:])
        return process

    def _project(self, admin: Http, tasks: int) -> int:
        settings = {"title": "load", "label_config": CONFIG, "maximum_annotations": 2}
        number = checked(admin.ask("POST", "/api/projects/", settings), 201)["id"]
        for start in range(0, tasks, 500):
            rows = [
                {"prompt": f"prompt {n}", **{f"image{i}": f"http://localhost/{n}-{i}.webp" for i in range(IMAGES)}}
                for n in range(start, min(tasks, start + 500))
            ]
            checked(admin.ask("POST", f"/api/projects/{number}/import", rows), 201)
        return number

    def _next(self, asked: Http) -> int | None:
        """Next-task; 404 says that there is none."""
        status, body = asked.ask("GET", f"/api/projects/{self.project}/next")
        return None if status == 404 else checked((status, body), 200)["id"]

    def _annotate(self, asked: Http, task: int) -> bool:
        """Create-annotation: a choice for each image, as our answer has."""
        result = [
            {
                "from_name": f"choice{i}",
                "to_name": f"image{i}",
                "type": "choices",
                "value": {"choices": [random.choice(("like", "dislike"))]},
            }
            for i in range(IMAGES)
        ]
        made = checked(asked.ask("POST", f"/api/tasks/{task}/annotations/", {"result": result, "lead_time": 3}), 201)
        return made["task"] == task

    def kept(self) -> int:
        """Annotations in the database."""
        return int(self.postgres.psql("SELECT count(*) FROM task_completion;", "labelstudio"))

    def roots(self) -> list[int]:
        """The processes whose work counts."""
        return [self.process.pid, postmaster(self.folder / "postgres")]

    def stop(self) -> None:
        """Everything down."""
        self.process.terminate()
        self.process.wait(60)
        self.postgres.cleanup()


def _authorized(token: str) -> dict[str, str]:
    return {"Authorization": f"Token {token}"}


def _installed(environment: Path) -> Path:
    """The Python of a virtual environment with Label Studio, which is made when it is not there."""
    python = environment / "bin" / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
    known = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    if not all(package in known.splitlines() for package in PACKAGES):
        print("installing Label Studio (minutes)", file=sys.stderr, flush=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python
