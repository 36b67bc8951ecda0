"""Text that people wrote has a direction of its own: wherever a page shows it, `<bdi>` or `dir="auto"` is around it, so
that a right-to-left name does not turn the words beside it. Each field holds Hebrew here; a page that shows it bare fails.

Attributes such as `alt` have no direction of their own in HTML, and a window's title neither; these are passed over.
"""

import re
from html.parser import HTMLParser

import pytest
from django.urls import reverse

from tests.webapp.conftest import routes
from tests.webapp.written import FIELDS, NOT_PAGES, everywhere
from webapp.labelling.templatetags.texts import markdown

HEBREW = "שלום"
VOID = "area base br col embed hr img input link meta source track wbr".split()
SILENT = {"title", "script", "style"}


def hebrew(field: str) -> str:
    """Right-to-left text that names the field."""
    return f"{HEBREW} xss-{field} {HEBREW}"


class Page(HTMLParser):
    """Which fields a page shows, and where one has no direction of its own."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open, self.bare, self.shown = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        own = tag == "bdi" or values.get("dir") == "auto"
        if tag == "input" and values.get("type") != "hidden":
            self.look(values.get("value") or "", own)
        if tag not in VOID:
            self.open.append((tag, own))

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if not SILENT & {tag for tag, _own in self.open}:
            self.look(data, any(own for _tag, own in self.open))

    def look(self, text, own):
        found = re.findall(r"xss-(\w+)", text)
        self.shown.update(found)
        if not own:
            self.bare += [f"<{' '.join(tag for tag, _ in self.open[3:])}> {text.strip()[:90]}" for _ in found]


def test_on_every_page(project, address, ready, person, client, boss):
    everywhere(project, ready, person, boss, hebrew)
    client.force_login(boss)
    named = {name for name, _ in routes() if not name.startswith(("admin:", "api:"))}
    paths = [address(name) for name in sorted(named - NOT_PAGES)]
    paths += [address("review-list") + "?show=all", reverse("round", args=["stars", 1])]
    shown, bare = set(), []
    for path in paths:
        answer = client.get(path)
        if answer.status_code == 200 and answer["Content-Type"].startswith("text/html"):
            page = Page(answer.content.decode())
            shown |= page.shown
            bare += [f"{path} {place}" for place in page.bare]
    assert bare == [], "\n".join(bare)
    assert set(FIELDS) - shown == set()


@pytest.mark.parametrize("begins", ["", "# ", "- ", "1. ", "> ", "    ", "```\n"])
def test_each_paragraph_of_guidelines_has_its_own(begins):
    page = Page(markdown(begins + hebrew("guidelines")))
    assert page.shown == {"guidelines"} and page.bare == []
