"""Imports exports into a Label Studio of its own, by its API. Runs in Label Studio's environment.

usage: import_into_label_studio.py FOLDER, which is an unpacked archive and has the tasks with images inside as inside.json
"""

import importlib.util
import json
import logging
import os
import sys
from pathlib import Path

logging.disable(logging.ERROR)
folder = Path(sys.argv[1]).resolve()
os.environ |= {
    "DJANGO_SETTINGS_MODULE": "core.settings.label_studio",
    "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "label-studio"),
    "LOCAL_FILES_SERVING_ENABLED": "true",
    "LOCAL_FILES_DOCUMENT_ROOT": str(folder),
    "LATEST_VERSION_CHECK": "false",
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
}
sys.path.insert(0, str(Path(importlib.util.find_spec("label_studio").origin).parent))

import django  # noqa: E402
from django.apps import apps  # noqa: E402
from django.conf import settings  # noqa: E402
from django.db import connection  # noqa: E402


class _NoMigrations:
    """Tables are made as the models say, which takes seconds instead of minutes."""

    def __contains__(self, app):
        return True

    def __getitem__(self, app):
        return None


settings.MIGRATION_MODULES = _NoMigrations()
settings.DATABASES["default"]["NAME"] = str(folder / "label-studio.sqlite3")
django.setup()

import io_storages.localfiles.models  # noqa: E402, F401 - else its tables come with the first request
from organizations.models import Organization  # noqa: E402
from rest_framework.test import APIClient  # noqa: E402
from users.models import User  # noqa: E402

with connection.schema_editor() as editor:
    for model in apps.get_models():
        if model._meta.managed and not model._meta.proxy:
            editor.create_model(model)

user = User.objects.create_user(email="ann@example.org", password="correct horse battery")
user.active_organization = Organization.create_organization(created_by=user, title="Stars")
user.save()
client = APIClient()
client.force_authenticate(user)


def project_of(tasks: list) -> int:
    """A new project with the archive's interface and these tasks."""
    interface = (folder / "labelling-interface.xml").read_text()
    made = client.post("/api/projects/", {"title": "Stars", "label_config": interface}, format="json")
    assert made.status_code == 201, made.data
    answer = client.post(f"/api/projects/{made.data['id']}/import", tasks, format="json")
    assert answer.status_code == 201, answer.data
    return made.data["id"]


def exported(project: int) -> list:
    answer = client.get(f"/api/projects/{project}/export?exportType=JSON")
    assert answer.status_code == 200
    return json.loads(b"".join(answer.streaming_content) if answer.streaming else answer.content)


inside = project_of(json.loads((folder / "inside.json").read_text()))
by_path = project_of(json.loads((folder / "tasks.json").read_text()))
storage = {"project": by_path, "path": str(folder / "images"), "title": "images", "use_blob_urls": True}
answer = client.post("/api/storages/localfiles", storage, format="json")
assert answer.status_code == 201, answer.data
files = [client.get(task["data"]["image"]) for task in exported(by_path)]
print(
    json.dumps(
        {
            "inside": exported(inside),
            "files": [[file.status_code, b"".join(file.streaming_content)[:4].decode()] for file in files],
        }
    )
)
