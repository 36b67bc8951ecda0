"""One form of a text that people see as one. Prompts are brought to it before they are compared, hashed, split or kept."""

from __future__ import annotations

import re
import unicodedata

from common.language import gettext as _

LONGEST = 1000  # characters of a prompt

# They turn the order in which a line is shown: what is read is not what is stored.
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
# Nothing is seen of them though Unicode does not call them format characters.
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_BLANK = frozenset("\u2800")  # seen as a space
# Format characters that are seen: signs around Arabic, Syriac and Kaithi numbers.
_SEEN_FORMAT = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
_JOINERS = frozenset("\u200c\u200d")
_FLAG = "\U0001f3f4"  # the only emoji that takes tag characters: the flags of England, Scotland, Wales


def canonical_prompt(text: str) -> str:
    """The prompt in Unicode's NFC, on one line with single spaces, without characters that nobody sees.

    Joiners and variation selectors stay where they make one picture of an emoji, or where a script is written with them.
    Raises ValueError, a sentence without the field, for characters that turn the direction of what is shown, null
    characters and halves of characters. The result may be empty; doing it twice changes nothing.
    """
    if turned := _TURNING.search(text):
        raise ValueError(
            _("it holds %(code)s, which turns the direction of what is shown; remove it")
            % {"code": f"U+{ord(turned[0]):04X}"}
        )
    if bad := _UNSTORABLE.search(text):
        if bad[0] == "\0":
            raise ValueError(_("it holds a NUL character; remove it"))
        raise ValueError(_("it holds half a character; write the whole one"))
    kept: list[str] = []
    for place, char in enumerate(text):
        if char in _BLANK:
            kept.append(" ")
        elif _is_seen(char) or _belongs(char, kept[-1] if kept else "", text[place + 1 : place + 2]):
            kept.append(char)
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).split())


def _is_seen(char: str) -> bool:
    if char.isspace() or char in _SEEN_FORMAT:
        return True
    return (
        unicodedata.category(char) not in ("Cc", "Cf")
        and char not in _UNSEEN
        and not _is_selector(char)
        and not _is_tag(char)
    )


def _belongs(char: str, before: str, after: str) -> bool:
    """Whether a character that is not seen itself changes what stands around it: `before` is kept, `after` comes."""
    if not before:
        return False
    if char == "\u200d" and _is_picture(before) and _is_picture(after) and after != "\ufe0f":
        return True
    if char in _JOINERS:  # Persian, Hindi, Sinhala, … are written with them
        return _joins(before) and _joins(after)
    if _is_tag(char):
        return before == _FLAG or _is_tag(before)
    if char in "\ufe0e\ufe0f":
        return _is_sign(before) or (before in "#*0123456789" and after == "\u20e3")
    return _is_selector(char) and (_is_ideograph(before) or 0x1800 <= ord(before) <= 0x18AF)


def _is_picture(char: str) -> bool:
    """An emoji or what belongs to one before a joiner: a skin colour, a selector."""
    return char != "" and (_is_sign(char) or char == "\ufe0f" or "\U0001f3fb" <= char <= "\U0001f3ff")


def _is_sign(char: str) -> bool:
    """What may be an emoji; some are not among Unicode's "other symbols"."""
    return unicodedata.category(char) == "So" or char in "↔↕⤴⤵ℹ‼⁉〰〽" or "\u25f8" <= char <= "\u25ff"


def _joins(char: str) -> bool:
    """A letter or mark of a script with joiners: Arabic's kin and those of South and Southeast Asia, and Mongolian."""
    return (
        char != ""
        and ("\u0600" <= char <= "\u08ff" or "\u0900" <= char <= "\u0dff" or "\u1780" <= char <= "\u18af")
        and unicodedata.category(char)[0] in "LM"
        and _is_seen(char)
    )


def _is_selector(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f" or "\u180b" <= char <= "\u180f" or "\U000e0100" <= char <= "\U000e01ef"


def _is_tag(char: str) -> bool:
    return "\U000e0020" <= char <= "\U000e007f"


def _is_ideograph(char: str) -> bool:
    return "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or "\U00020000" <= char <= "\U000323af"
