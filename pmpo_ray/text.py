"""Untrusted texts: the characters that may be neither shown nor adopted, ways to shorten texts, and when two
are the same instruction.

Invariant: the output of `visible` contains no hidden character.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_JOINERS = "\u200c\u200d"
"""Persian and Indic scripts and emoji need these two format characters."""
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def is_hidden(character: str) -> bool:
    """True for a character that is invisible or steers a terminal: control and format characters (direction
    marks among them), lone surrogates, and Unicode's line and paragraph separators. Line feeds, tabs and the
    two joiners are not hidden."""
    return character not in f"\n\t{_JOINERS}" and unicodedata.category(character) in _HIDDEN_CATEGORIES


def visible(text: str) -> str:
    r"""`text` with every hidden character written as an escape (\x1b for ESC); line breaks stay."""
    plain = text.replace("\r\n", "\n").expandtabs(4)
    return "".join(ascii(character)[1:-1] if is_hidden(character) else character for character in plain)


def in_line(text: str) -> str:
    """`text` on one line, with hidden characters escaped."""
    return " ".join(visible(text).split())


def shortened(text: str, width: int, tail: float = 0.0) -> str:
    """`text` in at most `width` characters. A longer text keeps its beginning and the share `tail` of the
    width from its end, with "…" between them."""
    if len(text) <= width:
        return text
    end = int(width * tail)
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def shortened_name(name: str, width: int) -> str:
    """A name on one line in at most `width` characters. Most of the end is kept, because names of one family
    differ there."""
    return shortened(in_line(name), width, tail=2 / 3)


def excerpt(text: str, width: int) -> str:
    """The beginning of `text` on one line, in at most `width` characters, with hidden characters escaped."""
    # Cut before escaping, which is slow for a long text.
    shown = in_line(text[: 4 * width])
    return shortened(shown if len(text) <= 4 * width else f"{shown}…", width)


def normalise(text: str) -> str:
    """The text with single spaces and without case: equal results mean the same instruction."""
    return " ".join(text.split()).casefold()


def error_line(error: BaseException | str, limit: int = 300) -> str:
    """The text of an error on one line of at most `limit` characters; for an error without a text, the name
    of its class."""
    return shortened(" ".join(str(error).split()) or type(error).__name__, limit)


def explained(names: Sequence[str], meanings: Sequence[str]) -> tuple[str, ...]:
    """The names, each with its meaning in brackets behind it; without meanings the names alone."""
    pairs = zip(names, meanings, strict=True) if meanings else ()
    return tuple(f"{name} ({meaning})" for name, meaning in pairs) or tuple(names)
