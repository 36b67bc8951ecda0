"""What production serves: every script by a hashed name, also where a module imports another."""

import json
import re

import pytest
from django.core.management import call_command

from common import places


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    from django.test import override_settings

    root = tmp_path_factory.mktemp("static")
    storage = {"staticfiles": {"BACKEND": "webapp.lib.static_files.HashedStaticFiles"}}
    with override_settings(STATIC_ROOT=root, STORAGES=storage, DEBUG=False):
        call_command("collectstatic", interactive=False, verbosity=0)
    return root


def test_modules_import_each_other_by_hashed_names(collected):
    names = json.loads((collected / "staticfiles.json").read_text())["paths"]
    ours = [path.name for path in (places.shipped("static") / "js").glob("*.js")]
    imported = {}
    for name in ours:
        text = (collected / names[f"js/{name}"]).read_text()
        imported[name] = re.findall(r'from "\./([^"]+)"', text)
        assert re.search(r"""(from|import)\s*['"]\./[\w-]+\.js""", text) is None
        assert all((collected / "js" / other).is_file() for other in imported[name])
    assert len(imported["annotate.js"]) == 7
    assert names["js/outbox.js"].removeprefix("js/") in imported["annotate.js"]


def test_a_changed_module_changes_the_name_of_those_that_import_it(collected, tmp_path, settings):
    names = json.loads((collected / "staticfiles.json").read_text())["paths"]
    source = tmp_path / "source"
    (source / "js").mkdir(parents=True)
    for file in (places.shipped("static") / "js").glob("*.js"):
        changed = file.read_text() + ("// changed\n" if file.name == "outbox.js" else "")
        (source / "js" / file.name).write_text(changed)
    settings.STATICFILES_DIRS = [source]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    settings.STATIC_ROOT = tmp_path / "root"
    settings.STORAGES = {"staticfiles": {"BACKEND": "webapp.lib.static_files.HashedStaticFiles"}}
    from django.contrib.staticfiles import finders

    finders.get_finder.cache_clear()
    call_command("collectstatic", interactive=False, verbosity=0)
    finders.get_finder.cache_clear()
    new = json.loads((tmp_path / "root" / "staticfiles.json").read_text())["paths"]
    moved = {name for name in new if new[name] != names[name]}
    assert moved == {"js/outbox.js", "js/annotate.js"}
