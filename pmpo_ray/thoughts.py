"""Thoughts in replies: the text that a reasoning model writes before its answer, in every notation in use.

Invariants: no part of a thought is taken for the answer; a thought that is opened and never closed leaves no
answer; a tag that a reply only mentions (quoted, within code, or within <prompt> or <answer>) opens and
closes nothing; the time is linear in the length of the reply.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

_NAME = (
    r"(?:[\w.-]{1,20}[:_])?"
    r"(?:think(?:ing)?|thoughts?|reasoning|reflection|analysis|scratchpad|(?:inner|internal)[_ ]monologue)"
)
THOUGHT_TAG = (
    rf"</?\s{{0,3}}{_NAME}(?:\s[^<>]{{0,200}})?>|\[/?think\]|◁/?think▷"
    r"|<\|(?:/?think(?:ing)?|(?:begin|start|end)_(?:of_)?(?:think(?:ing)?|thought|reasoning))\|>"
)
"""A pattern of one tag that opens or closes a thought; it is to be matched without case."""

_EVENT = re.compile(
    rf"""(?P<tag>(?i:{THOUGHT_TAG}))
    # The channels of harmony; the second form is left of them when special tokens are dropped.
    |<\|channel\|>\s{{0,3}}(?P<channel>analysis|commentary|final)\b[^<]{{0,200}}(?:<\|constrain\|>[^<]{{0,40}})?<\|message\|>
    |assistant(?P<glued>analysis|commentary|final)
    |\A\s{{0,3}}(?P<first>analysis(?=[^\W_]|["“*<\[\\$])|final(?=[A-Z0-9"“*(\\$]|[^\x00-\x7f]))
    # A channel of Gemma, and the heading that ends a thought of Granite.
    |(?P<opened><\|channel>(?:thought|analysis)\b)
    |(?P<closed><channel\|>|^Here\ is\ my\ response:)
    |(?P<fence>^[ \t]{{0,3}}(?:```|~~~)[^\n`]{{0,40}}$)
    |(?P<region>(?i:<\s{{0,3}}/?\s{{0,3}}(?:prompt|answer)\s{{0,3}}>))""",
    re.VERBOSE | re.MULTILINE,
)
_HINT = re.compile(r"[<◁]|[Tt][Hh][Ii][Nn][Kk]\]|assistant|\A\s{0,3}[af]|Here is my response:")
"""A pattern of what every reply with a thought has, which is faster to find."""
_MESSAGE_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_CLOSING_TAG = re.compile(r"[<\[◁]\|?\s{0,3}(?:/|end)", re.IGNORECASE)
_OPEN_QUOTE = re.compile(r"(?:\A|(?<![^\s(\[]))[`\"'“‘«]\Z")
_QUOTES = frozenset("`\"'”’»")
_NOUN = re.compile(r"[`\"'”’»]?[ -](?:tags?|tokens?|blocks?|elements?|markers?|sections?)\b", re.IGNORECASE)
_NO_THOUGHT = frozenset({"...", "…", "and", "or", ",", "/", "&"})
"""Texts between two tags that only mention them, as in "<think> and </think>"."""

_Kind = Literal["open", "close", "fence", "region", "region end"]


@dataclass(frozen=True, slots=True)
class _Event:
    start: int
    end: int
    kind: _Kind


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a reply outside its thoughts. `before` stands before the first thought that the reply
    opens itself; it is empty if there is none. `behind` stands behind the last thought, None if that one is
    never closed."""

    before: str
    behind: str | None


def parts(reply: str) -> Parts:
    """The parts of a reply outside its thoughts. A reply that only closes a thought began inside it, because
    the prompt had opened it."""
    events = _events(reply)
    thinking, begin, before, index = False, 0, None, 0
    while index < len(events):
        event = events[index]
        if event.kind == "open":
            thinking = True
            before = reply[: event.start] if before is None and begin == 0 else before
        elif event.kind == "close":
            thinking, begin = False, event.end
        elif not thinking:
            index = _last_inside(events, index, reply)
        index += 1
    if thinking:
        return Parts(before or "", None)
    behind = reply[begin:]
    return Parts(before or "", _MESSAGE_END.split(behind)[0] if "<|message|>" in reply[:begin] else behind)


def behind_thoughts(reply: str) -> str | None:
    """The part of a reply behind its thoughts; None if a thought is never closed."""
    return parts(reply).behind


def without_thoughts(reply: str) -> str:
    """The part of a reply behind its thoughts; empty if a thought is never closed."""
    return behind_thoughts(reply) or ""


def _events(reply: str) -> list[_Event]:
    """The tags of a reply that are not mere mentions, in order. Regions that never end are left out."""
    if not _HINT.search(reply):
        return []
    matches = list(_EVENT.finditer(reply))
    events: list[_Event] = []
    last: dict[_Kind, int] = {}
    skip = False
    for match, after in zip_longest(matches, matches[1:]):
        kind = _kind(match)
        if skip:
            skip = False
        elif (
            kind == "open" and after is not None and _kind(after) == "close" and _are_mentioned(match, after)
        ):
            skip = True
        elif not (match["tag"] and _is_mentioned(match, kind)):
            events.append(_Event(match.start(), match.end(), kind))
            last[kind] = match.start()
    ends = {"fence": last.get("fence", -1), "region": last.get("region end", -1)}
    return [event for event in events if event.kind not in ends or event.start <= ends[event.kind]]


def _kind(match: re.Match[str]) -> _Kind:
    if channel := match["channel"] or match["glued"] or match["first"]:
        return "close" if channel == "final" else "open"
    if match["tag"]:
        return "close" if _CLOSING_TAG.match(match["tag"]) else "open"
    if match["region"]:
        return "region end" if "/" in match["region"] else "region"
    return "fence" if match["fence"] is not None else "open" if match["opened"] else "close"


def _is_mentioned(match: re.Match[str], kind: _Kind) -> bool:
    """True for a tag in quotes, and for one that is named, as in "the <think> tag"."""
    text, start, end = match.string, match.start(), match.end()
    quoted = _OPEN_QUOTE.search(text, max(0, start - 2), start) is not None
    if quoted and (kind == "open" or text[end : end + 1] in _QUOTES):
        return True
    return _NOUN.match(text, end) is not None


def _are_mentioned(opening: re.Match[str], closing: re.Match[str]) -> bool:
    """True for a pair of tags in one pair of quotes, and for one without a thought between them, as in
    "<think> and </think>"."""
    text = opening.string
    if text[opening.end() : closing.start()].strip() in _NO_THOUGHT:
        return True
    quoted = _OPEN_QUOTE.search(text, max(0, opening.start() - 2), opening.start()) is not None
    return quoted and text[closing.end() : closing.end() + 1] in _QUOTES


def _last_inside(events: Sequence[_Event], index: int, reply: str) -> int:
    """The index of the last event of the code block or region that begins at event number `index`. One that
    begins with a thought is not left out: the whole reply stands in it."""
    kind: _Kind = "fence" if events[index].kind == "fence" else "region end"
    inner = events[index + 1] if index + 1 < len(events) else None
    if events[index].kind == "region end" or inner is None:
        return index
    outer = kind == "region end" or events[index].start == len(reply) - len(reply.lstrip())
    if outer and inner.kind == "open" and not reply[events[index].end : inner.start].strip():
        return index
    return next((n for n in range(index + 1, len(events)) if events[n].kind == kind), index)
