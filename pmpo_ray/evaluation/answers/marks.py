"""Where a reply gives its final answer: behind "the answer is" or "Answer:", after "####", in a box or a tag.

Invariants: what a mark holds is a piece of the reply; the work is linear in the length of the reply, whatever
it holds: every repetition in a pattern is bounded or cannot overlap with what follows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

MarkForm = Literal["said", "headed", "framed", "exact"]

UNREADABLE = ""
"""What a reader answers for a final answer that says nothing it could read, such as "(A) or (B)". It ends the
reading: what a reply says before its final answer is not its answer."""

_TRIED = 50
"""Marks that are looked at, from the last one backwards."""
_LONGEST = 10_000
"""Characters behind a mark that are looked at."""
_THINKING = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_SAID = re.compile(
    r"""(?<!\bwrong\ )(?<!\bincorrect\ )
    \b(?:(?:answer|ans)(?:\ (?:choice|option|letter))?
       |(?:correct|right|best|final|chosen)\ (?:option|choice|letter|label|category|class|statement))\b
    [*_`"'”)]{0,4}
    (?:\ (?:to|for|of|in)\ [^.:?!\n]{1,80}?)?
    (?: (?P<headed>\s{0,3}[:=：]|\s{1,3}[-–—]\s)
      | ,?\s{1,3}(?:(?:then|therefore|thus|hence),?\s)?
        (?:is|are|was|will\sbe|would\sbe|should\sbe|must\sbe)\b(?:\s(?:therefore|thus|hence|then|indeed)\b,?)?
        (?:\s{0,3}[:：])?
      | ['’]s\b )""",
    re.IGNORECASE | re.VERBOSE,
)
_HEADING = re.compile(
    r"^[#*_> \t]{0,12}(?:the )?(?:final |correct )?answer[*_ \t]{0,12}$", re.IGNORECASE | re.MULTILINE
)
_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]{0,5}([^\n]+)")
_TAG = re.compile(r"<answer>", re.IGNORECASE)
_TAG_END = re.compile(r"</answer>", re.IGNORECASE)
_BRACE = re.compile(r"\\[{}]|(\\f?boxed\s{0,3})?\{|\}")
_WRAPPED = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|sf)?|math(?:bf|it|rm|tt|sf)|mbox|operatorname)\s{0,3}\{([^{}]{0,500})\}"
)
_MARKUP = re.compile(r"[`\"“”„«»]|\*\*|__|(?<!\w)[*_]|[*_](?!\w)")
_LEAD = re.compile(
    r"""(?:[\s:=,.>#~≈→•'‘’]|[-–—](?=[\s]))+
      |(?:so|that|therefore|thus|then|hence|simply|clearly|indeed|likely|probably|definitely|just|exactly
         |approximately|about|around|only|most|as\ follows)\b(?!['’])""",
    re.IGNORECASE | re.VERBOSE,
)
_LEADS = 8
"""Fillers before an answer that are passed over."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\d\s])|\n")


@dataclass(frozen=True, slots=True)
class Mark:
    """The text that a mark at position `start` gives as the final answer. It is the whole answer where it is
    "framed" by a box or a tag, or "exact" (a line behind "####", which may as well be a heading); otherwise
    more may follow the answer. A "headed" one ("Answer:") may turn out to be the reasoning itself."""

    start: int
    text: str
    form: MarkForm


class Reader(Protocol):
    """Reads answers of one form. Both return the answer in its canonical form, None where there is none, or
    `UNREADABLE`."""

    def marked(self, mark: Mark) -> str | None:
        """The answer that a mark gives."""

    def unmarked(self, reply: str) -> str | None:
        """The answer of a reply in which no mark gives one."""


def spoken(text: str) -> str:
    """The reply without the thinking before it; empty where the thinking never ended."""
    tags = list(_THINKING.finditer(text))
    ends = [tag.end() for tag in tags if tag.group(1)]
    if tags and not tags[-1].group(1):
        return ""
    return text[ends[-1] if ends else 0 :].strip()


def marks(reply: str) -> list[Mark]:
    """The marks of a reply, the last one first."""
    found = [*_said(reply), *_boxed(reply)]
    tags = [(match.start(), match.end()) for match in _TAG.finditer(reply)]
    for start, begin in tags[-_TRIED:]:
        end = _TAG_END.search(reply, begin, begin + _LONGEST)
        found.append((start, begin, end.start() if end else begin + _LONGEST, "framed"))
    found.sort(reverse=True)
    return [
        Mark(start, text, form)
        for start, begin, end, form in found[:_TRIED]
        if (text := reply[begin : min(end, begin + _LONGEST)]).strip()
    ]


def _said(reply: str) -> Iterator[tuple[int, int, int, MarkForm]]:
    for match in _SAID.finditer(reply):
        yield match.start(), match.end(), len(reply), "headed" if match.group("headed") else "said"
    for match in _HEADING.finditer(reply):
        yield match.start(), match.end(), len(reply), "headed"
    for match in _HASHES.finditer(reply):
        yield match.start(), match.start(1), match.end(), "exact"


def _boxed(reply: str) -> Iterator[tuple[int, int, int, MarkForm]]:
    """What stands in boxes, by one pass over all braces: a search for the end of each box would take a time
    quadratic in the number of boxes that never end."""
    if "boxed" not in reply:
        return
    opened: list[tuple[int, int, bool]] = []
    for brace in _BRACE.finditer(reply):
        if brace.group().startswith("\\") and brace.group(1) is None:
            continue
        if brace.group().endswith("{"):
            opened.append((brace.start(), brace.end(), brace.group(1) is not None))
        elif opened:
            start, begin, is_box = opened.pop()
            if is_box:
                yield start, begin, brace.start(), "framed"


def unwrapped(text: str) -> str:
    """The text with the contents of \\text{...} and its like in their place."""
    return _WRAPPED.sub(r"\1", _WRAPPED.sub(r"\1", text))


def plain(text: str) -> str:
    """The text without Markdown emphasis, quotes, and LaTeX around words."""
    return _MARKUP.sub("", unwrapped(text).replace("\\", "") if "\\" in text else text)


def beginnings(line: str) -> list[str]:
    """A line, and what is left of it without the bullets and fillers such as "therefore" that it begins with,
    one after the other."""
    position, found = 0, [line.strip()]
    while (match := _LEAD.match(line, position)) and len(found) <= _LEADS:
        position = match.end()
        found.append(line[position:].strip())
    return found


def first_line(text: str) -> str:
    """The first line that is not blank; empty where there is none."""
    return text.lstrip().split("\n", 1)[0]


def first_sentence(text: str) -> str:
    """The text up to the end of its first sentence or line."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]
