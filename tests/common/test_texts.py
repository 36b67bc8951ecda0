"""One form of a text that people see as one."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.texts import canonical_prompt

ENGLAND = "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
FAMILY = "👨\u200d👩\u200d👧"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("\ufeffa  red\u00a0cube\r\n", "a red cube"),
        ("a red\u200b cu\u00adbe\u2060", "a red cube"),
        ("a cafe\u0301", "a café"),
        ("a caf\u200be\u200b\u0301", "a café"),
        ("a\u0007cat\u001b[0m", "acat[0m"),
        ("\u200b\u200e\u3164", ""),
        ("a\u200dcat a\u200ccat a\ufe0fcat", "acat acat acat"),
        (f"{FAMILY} at home", f"{FAMILY} at home"),
        ("a ❤\ufe0f and 1\ufe0f\u20e3 and 🙂\u200d↔\ufe0f", "a ❤\ufe0f and 1\ufe0f\u20e3 and 🙂\u200d↔\ufe0f"),
        ("👩🏽\u200d🚀", "👩🏽\u200d🚀"),
        (f"{ENGLAND} flag", f"{ENGLAND} flag"),
        ("a cat\U000e0068\U000e0069", "a cat"),  # tags hide words
        ("می\u200cخواهم", "می\u200cخواهم"),  # Persian is written with it
        ("क्\u200dष", "क्\u200dष"),
        ("مكعب أحمر", "مكعب أحمر"),
        ("葛\U000e0100 city", "葛\U000e0100 city"),
    ],
)  # fmt: skip
def test_what_is_seen_alike_is_kept_alike(text, same):
    assert canonical_prompt(text) == same


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("user \u202egnp.exe", "it holds U\\+202E, which turns"),
        ("\u2066a\u2069", "it holds U\\+2066"),
        ("a\0", "a NUL character"),
        ("a \ud83d", "half a character"),
    ],
)
def test_what_would_be_shown_otherwise_is_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        canonical_prompt(text)


UNSEEN = st.sampled_from(
    "\u200b\u200c\u200d\ufe0f\ufe0e\u0301\u00ad\u180b\u034f\u115f\u3164\u2800 \t1#❤👨🏽↔क्मी葛ᠠ🏴\u20e3\U000e0067\U000e0100"
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.text(st.characters(codec="utf-8") | UNSEEN))
def test_twice_is_once(text):
    try:
        once = canonical_prompt(text)
    except ValueError:
        return
    assert canonical_prompt(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == " ".join(once.split())
