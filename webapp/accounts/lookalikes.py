"""Names that a reader takes for another person's: letters of several scripts in one name, and names whose letters look the
same. A small form of Unicode's technical standard 39 (single-script names, skeletons) on the standard library alone."""

from __future__ import annotations

import unicodedata

# Scripts that are written in one word; a name may mix these, and no others.
TOGETHER = {"LATIN", "CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "HANGUL"}
# By script and case, the letters (as Unicode names them) that look like a Latin one.
ALIKE = {
    "CYRILLIC SMALL": {
        "A": "a",
        "IE": "e",
        "IO": "\u00eb",
        "O": "o",
        "ER": "p",
        "ES": "c",
        "U": "y",
        "HA": "x",
        "BYELORUSSIAN-UKRAINIAN I": "i",
        "YI": "\u00ef",
        "JE": "j",
        "DZE": "s",
        "SHHA": "h",
        "QA": "q",
        "WE": "w",
        "KOMI DE": "d",
        "PALOCHKA": "l",
        "KA": "k",
    },
    "CYRILLIC CAPITAL": {"VE": "B", "EM": "M", "EN": "H", "TE": "T"},  # and those whose small ones are above
    "GREEK SMALL": {
        "ALPHA": "a",
        "GAMMA": "y",
        "IOTA": "i",
        "KAPPA": "k",
        "NU": "v",
        "OMICRON": "o",
        "RHO": "p",
        "UPSILON": "u",
        "CHI": "x",
    },
    "GREEK CAPITAL": {
        "BETA": "B",
        "EPSILON": "E",
        "ZETA": "Z",
        "ETA": "H",
        "MU": "M",
        "NU": "N",
        "TAU": "T",
        "UPSILON": "Y",
    },
    "ARMENIAN SMALL": {"OH": "o", "SEH": "u", "HO": "h", "CO": "g"},
    "LATIN SMALL": {"DOTLESS I": "i", "ALPHA": "a", "SCRIPT G": "g", "M": "rn"},
    "LATIN CAPITAL": {"I": "l"},
}
LATIN = {unicodedata.lookup(f"{kind} LETTER {name}"): as_in for kind, of in ALIKE.items() for name, as_in in of.items()}
LATIN |= {"0": "o", "1": "l"}


def mixes_scripts(name: str) -> bool:
    """Whether letters of scripts that are never written together stand in it, as a Cyrillic one among Latin ones."""
    scripts = {_script(c) for c in name if unicodedata.category(c) in ("Lu", "Ll", "Lt", "Lo")}
    return len(scripts) > 1 and not scripts <= TOGETHER


def alike(one: str, other: str) -> bool:
    """Whether the two look the same: in their letters, or but for large and small ones."""
    return bool(_skeletons(one) & _skeletons(other))


def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").replace("-", " ").split()[0]


def _skeletons(name: str) -> set[str]:
    """What the name looks like in Latin letters, as it is written and in small letters."""
    composed = unicodedata.normalize("NFKC", name)
    return {_drawn(composed), _drawn(composed.casefold())}


def _drawn(text: str) -> str:
    large = "".join(LATIN.get(c, c) for c in text)  # a capital may look like another letter than its small one does
    return "".join(LATIN.get(c, c) for c in large.casefold())
