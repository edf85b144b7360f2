"""Negations: if a text denies the answer that it names, or only asks for it.

Invariant: a negation counts within its own clause, and a question within its own sentence.
"""

from __future__ import annotations

import re
from typing import Literal

_CLAUSE = re.compile(r"[.,;:!?\n—。，；：]|\b(?:but|so|hence|therefore|thus|because)\b", re.IGNORECASE)
_DIRECTLY = re.compile(
    r"(?:\b(?:not|non|cannot)|n['’]t)[\s('‘-]{1,3}"
    r"(?:(?:a|an|the|be|considered|deductively|logically|formally|really)\s){0,3}[\s('‘]{0,3}\Z"
    # The same in Chinese, German, French, Italian and Portuguese.
    r"|[不非未]是?\s?\Z|\b(?:nicht|keine?|pas|non|não)\s(?:(?:une?|una|uma?|eine?)\s)?\Z",
    re.IGNORECASE,
)
_BEHIND = re.compile(r"\s?(?:では|じゃ|で)(?:ない|なく|ありません)|[이가] 아니")
"""Words for "not" in Japanese and Korean, which stand behind what they deny."""
_SOMEHOW = re.compile(
    r"\b(?:not|never|neither|nor|cannot|without|unlike|hardly|rather than|instead of|no)\b|n['’]t\b"
    r"|\b(?:nicht|keine?|pas|não)\b|不|没有",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"[\s*_\"')]{1,4}(?:only )?(?:if|unless|provided)\b", re.IGNORECASE)
_BEFORE = 80
"""Number of characters before a text in which a negation counts."""
_ASKED = re.compile(r"[^.!?\n。！？]{0,80}[?？]")
_REPLY = re.compile(
    r"[\s*_\"')\]]{0,6}(?:(no|nope|not|nein|non|不)|(yes|yeah|yep|ja|oui|是))(?![a-z])", re.IGNORECASE
)
_SHORTLY_ASKED = re.compile(r"[\s*_\"')\]]{0,4}[?？]")

Negation = Literal["none", "direct", "other"]


def negation(text: str, start: int, end: int) -> Negation:
    """The way in which a text denies its passage from `start` to `end`: "direct" if its opposite follows,
    "other" if nothing does. "Valid? No." is a direct negation; a question without a reply, and an answer on a
    condition, are others."""
    before = text[max(0, start - _BEFORE) : start]
    if _DIRECTLY.search(before) or _BEHIND.match(text, end):
        return "direct"
    if asked := _ASKED.match(text, end):
        reply = _REPLY.match(text, asked.end())
        if reply is None or not _SHORTLY_ASKED.match(text, end):
            return "other"
        return "direct" if reply[1] else "none"
    if _CONDITION.match(text, end):
        return "other"
    return "other" if denies(_CLAUSE.split(before)[-1]) else "none"


def asks(text: str, end: int) -> bool:
    """True if the passage of a text up to `end` is only asked for, as in "Valid? No."."""
    asked = _SHORTLY_ASKED.match(text, end)
    if asked is None:
        return False
    reply = _REPLY.match(text, asked.end())
    return reply is None or reply[2] is None


def denies(clause: str) -> bool:
    """True for a clause with a word that negates it."""
    return _SOMEHOW.search(clause) is not None


def begins_with_denial(text: str) -> bool:
    """True for a text whose first word negates it."""
    return _SOMEHOW.match(text) is not None
