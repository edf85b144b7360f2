"""Untrusted texts made safe to show, and shortened.

Invariant: a text that passed `visible` holds nothing that would steer a terminal.
"""

from __future__ import annotations

import unicodedata

_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C}


def visible(text: str) -> str:
    """`text` with everything that would steer a terminal written out (\\x1b for ESC); line breaks stay."""
    plain = text.replace("\r\n", "\n").expandtabs(4)
    return "".join(ascii(character)[1:-1] if _steers(character) else character for character in plain)


def _steers(character: str) -> bool:
    if character == "\n":
        return False
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or ord(character) in _BIDI


def shortened(name: str, width: int) -> str:
    """`name` in at most `width` characters; what goes stands before the end, where the names of a
    family differ."""
    if len(name) <= width:
        return name
    tail = width * 2 // 3
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"


def in_line(text: str) -> str:
    """`text` made visible on one line."""
    return " ".join(visible(text).split())
