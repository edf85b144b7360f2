"""Keys by which two texts count as the same input, or as the same label.

Invariants: a key depends on its text alone; labels are compared as texts, never as numbers: 1, 01 and 1.0 are
three labels.
"""

from __future__ import annotations

import unicodedata

from pmpo_ray.tasks.options import condensed
from pmpo_ray.text import excerpt

_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Characters without a shape that Unicode does not class as format characters: a joiner, empty letters."""
_FULL_STOPS = ".。"
_SHOWN = 60
_CODE_POINTS = 8
"""The maximum number of code points that are listed."""


def input_key(text: str) -> str:
    """The input in a form that is equal for two inputs that a reader would call the same."""
    return " ".join(text.split()).casefold()


def label_key(text: str) -> str:
    """The label in a form that is equal for two spellings of one label.

    Compatible characters count as the same (NFKC); invisible characters, white space, case and a final full
    stop do not count.
    """
    # Twice: folding the case can undo the normal form. The dot of a Turkish capital I stays behind as a mark.
    lower = unicodedata.normalize("NFKC", _without_invisible(text)).casefold().replace("i\u0307", "i")
    folded = unicodedata.normalize("NFKC", lower)
    key = condensed(_without_invisible(folded))
    ends_in_one = len(key) > 1 and key[-1] in _FULL_STOPS and key[-2] not in _FULL_STOPS
    return key[:-1] if ends_in_one else key


def quoted_apart(text: str, other: str) -> str:
    """`text` in quotes. If a reader cannot see how it differs from `other`, the code points that `other` does
    not have at this place follow in brackets."""
    shown = repr(excerpt(_without_invisible(text), _SHOWN))
    if _appearance(text) != _appearance(other):
        return shown
    start = _common_prefix(text, other)
    end = _common_prefix(text[start:][::-1], other[start:][::-1])
    differing = text[start : len(text) - end]
    return f"{shown} (with {code_points(differing)})" if differing else shown


def code_points(text: str) -> str:
    """The code points of a text, such as U+00E4; the first ones if it is long."""
    return " ".join(f"U+{ord(character):04X}" for character in text[:_CODE_POINTS])


def foreign_letters(text: str) -> str:
    """The Cyrillic letters that stand in a word between Latin ones, which most likely are slips that nobody
    sees, such as \u0456 for i; empty if there are none."""
    if text.isascii():
        return ""
    words = (word for word in text.split() if not word.isascii() and any(map(_is_latin, word)))
    return "".join(dict.fromkeys(letter for word in words for letter in word if _is_cyrillic(letter)))


def _is_latin(character: str) -> bool:
    return unicodedata.name(character, "").startswith("LATIN")


def _is_cyrillic(character: str) -> bool:
    return unicodedata.name(character, "").startswith("CYRILLIC")


def _common_prefix(one: str, other: str) -> int:
    """The number of characters with which both texts begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (left, right) in pairs if left != right), min(len(one), len(other)))


def _appearance(text: str) -> str:
    """The text as a reader sees it: composed, without invisible characters, with plain spaces."""
    return " ".join(unicodedata.normalize("NFC", _without_invisible(text)).split())


def _without_invisible(text: str) -> str:
    if text.isascii():
        return text
    return "".join(character for character in text if not _is_invisible(character))


def _is_invisible(character: str) -> bool:
    """True for format characters, variation selectors and fillers."""
    return (
        unicodedata.category(character) == "Cf"
        or character in _FILLERS
        or "\ufe00" <= character <= "\ufe0f"
        or "\u180b" <= character <= "\u180f"
        or "\U000e0100" <= character <= "\U000e01ef"
    )
