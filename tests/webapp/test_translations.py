"""Every text exists in German, the compiled catalogs are the ones of the sources, and no page speaks two languages."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po
from django.utils import translation

from tests.webapp import acting
from webapp.campaigns.models import Role
from webapp.labelling import guidelines
from webapp.labelling.models import Group
from webapp.rounds.forms import RoundForm
from webapp.rounds.models import ModelVersion, TrainingRound

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "locale" / "de" / "LC_MESSAGES"
DOMAINS = ("django", "djangojs")
# Names and the same word in both languages.
SAME = {
    "Likestep",
    "Stars",
    "Deutsch",
    "English",
    "Name",
    "Version",
    "Status",
    "Pause",
    "Admin",
    "Alarm",
    "noise",
    "reward",
    "Stars · Likestep",
    "API",
    "API · Stars",
    "Export",
    "Export · Stars",
    "Format",
    "GenEval",
    "Argilla",
    "CSV",
    "HPDv2, test.json",
    "HPDv2, train.json",
    "ImageReward",
    "JSON",
    "JSONL",
    "Label Studio",
    "LoRA",
    "Parquet",
    "Pick-a-Pic v2",
    "Prompt",
    "Prompts",
    "Prompts · Stars",
    "Test",
    "demo",
    "https://",
    "ocr",
    "scenes",
    "Webhooks",
}


def source(domain):
    return read_po(FOLDER.joinpath(f"{domain}.po").open("rb"), locale="de")


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_text_is_translated_with_its_placeholders(domain):
    for message in source(domain):
        if not message.id:
            continue
        pairs = list(zip(message.id, message.string, strict=True)) if message.pluralizable else [
            (message.id, message.string)
        ]  # fmt: skip
        assert "fuzzy" not in message.flags, message.id
        for english, german in pairs:
            assert german, english
            assert set(re.findall(r"%\(\w+\)s", english)) == set(re.findall(r"%\(\w+\)s", german)), english


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_compiled_catalog_is_the_one_of_its_source(domain):
    fresh = BytesIO()
    write_mo(fresh, source(domain))
    fresh.seek(0)
    kept = FOLDER.joinpath(f"{domain}.mo").open("rb")
    texts = [{str(m.id): m.string for m in read_mo(file) if m.id} for file in (fresh, kept)]
    assert texts[0] == texts[1], 'run `pybabel compile -d locale -D "django djangojs"`'


@pytest.mark.skipif(shutil.which("xgettext") is None, reason="no gettext; only makemessages needs it")
def test_no_text_is_missing_from_the_catalogs(tmp_path):
    for name in ("locale", "static", "templates", "webapp", "common", "trainer"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "manage.py", tmp_path)
    subprocess.run([sys.executable, "manage.py", "makemessages", "-v0"], cwd=tmp_path, check=True)
    for domain in DOMAINS:
        with (tmp_path / FOLDER.relative_to(ROOT) / f"{domain}.po").open("rb") as file:
            found = {m.id for m in read_po(file)}
        assert found == {m.id for m in source(domain)}, "run `manage.py makemessages`, translate, and compile"


class Texts(HTMLParser):
    """Text nodes, and the attributes that people hear, of a page; data for scripts left out."""

    def __init__(self, html):
        super().__init__()
        self.found, self.inside = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.inside.append(tag)
        self.found += [v for k, v in attributes if k in ("aria-label", "alt", "title", "placeholder") and v]

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style", "kbd", "q", "code"} & set(self.inside):
            self.found.append(data.strip())


@pytest.fixture
def boss_with_work(project, ready, person):
    boss = person("boss", Role.ADMIN)
    rated, flagged = ready(2)
    acting.submit_group(boss, project, rated.pk, dict.fromkeys(range(4), True), seconds=1, idempotency_key="a")
    acting.flag_group(boss, project, flagged.pk, kind="broken", position=1, note="noise", idempotency_key="f")
    guidelines.add_example(project, rated.generations.first().pk, good=True, note="noise")
    version = ModelVersion.objects.create(project=project, number=2, path="x", parent=project.active_version)
    TrainingRound.objects.create(
        project=project, number=1, base_version=project.active_version, idempotency_key="k", state="done",
        result_version=version, scores_before={"reward": 0.4}, scores_after={"reward": 0.6},
    )  # fmt: skip
    return boss


@pytest.mark.parametrize(
    "page",
    [
        "annotate/", "guidelines/", "me/", "flags/", "", "people/", "rounds/1/", "rounds/start/", "versions/", "quality/",
        "review/", "review/1/", "prompts/", "settings/", "export/", "api/", "audit/", "compare/",
    ],
)  # fmt: skip
def test_no_page_speaks_english_to_a_german(boss_with_work, client, page):
    client.force_login(boss_with_work)
    spoken, rated = {}, Group.objects.get(decisions=1).pk
    page = page.replace("review/1", f"review/{rated}")
    for language in ("en", "de"):
        html = client.get(f"/p/stars/{page}", headers={"accept-language": language}).content.decode()
        assert f'<html lang="{language}">' in html
        spoken[language] = {t for t in Texts(html).found if re.search(r"[A-Za-z]{3}", t)}
    # A setting's help ends with its name on the command line, and its choices are named as there.
    settings = {name for f in RoundForm() for name in (f.name, *(c for c, _ in getattr(f.field, "choices", ())))}
    names = SAME | settings | set(boss_with_work._meta.model.objects.values_list("username", flat=True))
    left = {t for t in spoken["en"] & spoken["de"] if t.rstrip(":") not in names and not re.fullmatch(r"\d+ stars", t)}
    assert left == set()


@pytest.mark.parametrize("language", ["en", "de"])
def test_a_settings_label_is_words_and_its_help_ends_with_its_name(language):
    with translation.override(language):
        fields = [f for f in RoundForm() if f.name != "key"]
    assert len(fields) > 40
    for field in fields:
        assert 3 < len(field.label) <= 65 and "_" not in field.label and not field.label.endswith("."), field.label
        assert field.help_text.endswith(f" <code>{field.name}</code>"), field.help_text
    assert len({f.label for f in fields}) == len(fields)


def test_refusals_of_the_rating_page_are_german_too(client, ann, ready):
    (group,) = ready()
    acting.give(ann, group.pk)
    client.force_login(ann)
    answer = client.post(
        f"/p/stars/groups/{acting.task(ann, group)}/submit/",
        {"labels": {}, "key": "k"},
        content_type="application/json",
        headers={"accept-language": "de-CH,de;q=0.9,en;q=0.5"},
    )
    assert answer.json()["error"].startswith("labels: Bild 1 ist unentschieden")


def test_scripts_get_their_german_texts_with_the_page(client, ann, project):
    client.force_login(ann)
    german = client.get("/p/stars/annotate/", headers={"accept-language": "de"}).content.decode()
    assert "gespeichert" in german and "wird gespeichert" in german
    english = client.get("/p/stars/annotate/", headers={"accept-language": "en"}).content.decode()
    assert '<script id="script-texts" type="application/json">{}</script>' in english
