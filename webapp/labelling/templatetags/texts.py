"""Texts in pages: Markdown that people wrote, and the translations that scripts need."""

from __future__ import annotations

import functools

from django import template
from django.utils.formats import localize
from django.utils.html import format_html, json_script
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language, gettext_noop
from django.utils.translation import gettext as _
from django.utils.translation.trans_real import DjangoTranslation
from django.views.i18n import JavaScriptCatalog
from markdown_it import MarkdownIt

from webapp.lib import bounds

register = template.Library()
# States, outcomes and splits are shown by {% translate row.state %}; named here so that makemessages finds them.
STATES = (
    gettext_noop("queued"),
    gettext_noop("generating"),
    gettext_noop("ready"),
    gettext_noop("done"),
    gettext_noop("failed"),
    gettext_noop("superseded"),
    gettext_noop("flagged"),
    gettext_noop("running"),
    gettext_noop("cancelled"),
    gettext_noop("draft"),
    gettext_noop("published"),
    gettext_noop("kept out"),
    gettext_noop("open"),
    gettext_noop("decided"),
    gettext_noop("stopped"),
    gettext_noop("submitted"),
    gettext_noop("skipped"),
    gettext_noop("pending"),
    gettext_noop("delivered"),
    gettext_noop("train"),
    gettext_noop("validation"),
    gettext_noop("test"),
    gettext_noop("withdrawn"),
)
# The same for what the audit log says.
ACTIONS = (
    gettext_noop("API token made"),
    gettext_noop("API token revoked"),
    gettext_noop("comparison started"),
    gettext_noop("comparison stopped"),
    gettext_noop("gold group made"),
    gettext_noop("gold group retired"),
    gettext_noop("invitation made"),
    gettext_noop("joined"),
    gettext_noop("joined by study"),
    gettext_noop("images imported"),
    gettext_noop("joined by log-in"),
    gettext_noop("labels imported"),
    gettext_noop("labels overruled"),
    gettext_noop("oracle asked again"),
    gettext_noop("project archived"),
    gettext_noop("project reopened"),
    gettext_noop("project created"),
    gettext_noop("prompts added"),
    gettext_noop("prompts restored"),
    gettext_noop("prompts tagged"),
    gettext_noop("prompts withdrawn"),
    gettext_noop("role changed"),
    gettext_noop("role raised by invitation"),
    gettext_noop("member removed"),
    gettext_noop("invitation revoked"),
    gettext_noop("settings changed"),
    gettext_noop("study made"),
    gettext_noop("study closed"),
    gettext_noop("version kept out"),
    gettext_noop("version shared"),
    gettext_noop("version published"),
    gettext_noop("webhook made"),
    gettext_noop("webhook removed"),
)
# HTML in the text is shown, not obeyed; the parser lets no script address through; pictures are of this site or none.
_markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).disable("image")


@register.filter
@functools.lru_cache(maxsize=256)  # the guidelines are on every rating page
def markdown(text: str) -> SafeString:
    """CommonMark as HTML, safe whoever wrote it; its headings come below the page's own two levels. What is longer than
    guidelines may be is cut."""
    text = text[: bounds.GUIDELINES]
    tokens = _markdown.parse(text)
    for token in tokens:
        if token.nesting == 1 or token.type in ("fence", "code_block"):
            token.attrSet("dir", "auto")  # each paragraph begins where its own language does
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
    # HTML in the source is off, so what comes out is the renderer's own.
    return mark_safe(_markdown.renderer.render(tokens, _markdown.options, {}))  # noqa: S308


@register.filter
def bdi(text: object) -> SafeString:
    """What somebody wrote, with its own direction, for a place in a sentence. In attributes the text goes as it is."""
    return format_html("<bdi>{}</bdi>", text)


@register.filter
def duration(seconds: float) -> str:
    """Seconds in words, as exact as an estimate is."""
    if seconds < 100:
        return _("%(n)s s") % {"n": max(1, round(seconds))}
    if seconds < 6000:
        return _("%(n)s minutes") % {"n": round(seconds / 60)}
    hours = seconds / 3600
    return _("%(n)s hours") % {"n": localize(round(hours, 1) if hours < 10 else round(hours))}


@register.simple_tag
def script_texts() -> SafeString:
    """The present language's texts of static/js, read by i18n.js: data in the page, so that it needs no request."""
    view = JavaScriptCatalog()
    view.translation = _catalog(get_language() or "en")
    return json_script(view.get_catalog(), "script-texts")


def _catalog(language: str):
    if language not in _catalogs:
        _catalogs[language] = DjangoTranslation(language, domain="djangojs")
    return _catalogs[language]


_catalogs: dict[str, object] = {}
