"""Marks of a final answer in a reply: "the answer is", "Answer:", "####", a box, or a tag.

Invariants: the text of a mark is a piece of the reply; the time is linear in the length of any reply: every
repetition in a pattern is bounded, or cannot overlap with what follows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

MarkForm = Literal["stated", "headed", "framed", "exact"]

UNREADABLE = ""
"""A reader's result for a final answer that is ambiguous, such as "(A) or (B)". Reading stops there: text
before the final answer is not the answer."""

_MAX_MARKS = 50
"""Maximum number of marks that are read, from the last one backwards."""
_MAX_CHARACTERS = 10_000
"""Maximum number of characters that are read after a mark."""
_STATED = re.compile(
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
_STATED_ELSEWHERE = re.compile(
    r"""(?:\b(?: (?:end)?(?:antwort|ergebnis|lösung)(?:\ auf\ die\ frage)?
            | réponse(?:\ (?:finale|correcte|exacte|juste))?
            | (?:respuesta|resposta)(?:\ (?:final|correct[ao]|corret[ao]|certa))?
            | risposta(?:\ (?:finale|corretta|esatta|giusta))?
            | ответ )
          [*_`"'”)]{0,4}
          (?: \s{0,3}[:=] | \s{1,3}(?:ist|lautet|wäre|est|serait|es|sería|è|sarebbe|é|seria)\b:? )
        | (?:答案|答え|正解|解答|정답|(?<![^\W_])답)[*_`]{0,4}
          (?: (?:应该?|應該?)?就?[是为為] | は | [은는] | \s{0,3}[:：=] )[*_`]{0,4}[:：]?
        | (?<![^\W_])答\s?[:：]
        | (?:所以|因此|故|应)(?:应该?)?选(?:择|项)? )""",
    re.IGNORECASE | re.VERBOSE,
)
"""The same in German, French, Spanish, Portuguese, Italian, Russian, Chinese, Japanese and Korean."""
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
         |approximately|about|around|only|most|as\ follows
         |also|daher|somit|donc|quindi|portanto|entonces)\b(?!['’])
      |(?:la|le|el|die|der|den)\ (?=\(?[a-z]\)?(?!\w))|(?:所以|因此|一共|共)""",
    re.IGNORECASE | re.VERBOSE,
)
_MAX_LEADS = 8
"""Maximum number of fillers before an answer that are skipped."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\d\s])|\n|(?<=[。！？])")


@dataclass(frozen=True, slots=True)
class Mark:
    """The text that a mark at position `start` of a reply gives as the final answer.

    "framed" (by a box or a tag): the text is the whole answer. "exact" (a line after "####"): it is the whole
    answer or a heading. "stated" ("the answer is"): more text may follow the answer. "headed" ("Answer:"):
    more text may follow, and the text may begin with the reasoning."""

    start: int
    text: str
    form: MarkForm


class Reader(Protocol):
    """Reads answers of one form. Both methods return the answer in canonical form, None if there is none, or
    `UNREADABLE`."""

    def marked(self, mark: Mark) -> str | None:
        """The answer in the text of a mark."""

    def unmarked(self, reply: str) -> str | None:
        """The answer in a reply whose marks give none."""


def marks(reply: str) -> list[Mark]:
    """The marks of a reply, the last one first."""
    spans = [*_stated(reply), *_boxed(reply)]
    tags = [(match.start(), match.end()) for match in _TAG.finditer(reply)]
    for start, begin in tags[-_MAX_MARKS:]:
        end = _TAG_END.search(reply, begin, begin + _MAX_CHARACTERS)
        spans.append((start, begin, end.start() if end else begin + _MAX_CHARACTERS, "framed"))
    spans.sort(reverse=True)
    return [
        Mark(start, text, form)
        for start, begin, end, form in spans[:_MAX_MARKS]
        if (text := reply[begin : min(end, begin + _MAX_CHARACTERS)]).strip()
    ]


def _stated(reply: str) -> Iterator[tuple[int, int, int, MarkForm]]:
    for match in _STATED.finditer(reply):
        yield match.start(), match.end(), len(reply), "headed" if match.group("headed") else "stated"
    for match in _STATED_ELSEWHERE.finditer(reply):
        headed = match.group().rstrip("*_`").endswith((":", "：", "="))
        yield match.start(), match.end(), len(reply), "headed" if headed else "stated"
    for match in _HEADING.finditer(reply):
        yield match.start(), match.end(), len(reply), "headed"
    for match in _HASHES.finditer(reply):
        yield match.start(), match.start(1), match.end(), "exact"


def _boxed(reply: str) -> Iterator[tuple[int, int, int, MarkForm]]:
    """The contents of boxes, in one pass over all braces: searching for the end of each box would take
    quadratic time if boxes are never closed."""
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
    """The text with \\text{...} and similar commands replaced by their contents."""
    return _WRAPPED.sub(r"\1", _WRAPPED.sub(r"\1", text))


def plain(text: str) -> str:
    """The text without Markdown emphasis, quotes, and LaTeX around words."""
    return _MARKUP.sub("", unwrapped(text).replace("\\", "") if "\\" in text else text)


def beginnings(line: str) -> list[str]:
    """A line, and the rests of it after each of the bullets and fillers (such as "therefore") at its
    beginning."""
    position, rests = 0, [line.strip()]
    while (match := _LEAD.match(line, position)) and len(rests) <= _MAX_LEADS:
        position = match.end()
        rests.append(line[position:].strip())
    return rests


def first_line(text: str) -> str:
    """The first line that is not blank; empty if there is none."""
    return text.lstrip().split("\n", 1)[0]


def first_sentence(text: str) -> str:
    """The text up to the end of its first sentence or line."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]
