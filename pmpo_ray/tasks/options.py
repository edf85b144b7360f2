"""Answer options listed in an input, and the wrong ones among them.

Invariants: a wrong option never has the text of the right one under another letter. It has the target's form:
a letter if the target is a letter, the option's text if it is a text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_HEADING = re.compile(
    r"(?:\b(?:options|choices|alternatives|possible\s+answers)"
    r"(?:[ \t]*\([^()\n]{1,60}\))?[*_]*[ \t]*[:\uff1a]"
    r"|^[#*_ \t]*(?:answer[ \t]+)?(?:options|choices|alternatives)[*_ \t]*$)[*_]*",
    re.IGNORECASE | re.MULTILINE,
)
_LETTERED = re.compile(r"(\(?)([A-Z])([).:])\s*(.*)")
_NUMBERED = re.compile(r"(\(?)([1-9]\d?|[a-z])([).])\s+(.*)")
_BULLETED = re.compile(r"[-*•]\s+(.*)")
_ANY_LETTER = re.compile(r"(?<!\w)\(?A[).]")
_LETTER_TARGET = re.compile(r"(\(?)([A-Z])([).]?)")
_SIMILAR = 0.6
"""The minimum similarity (0 to 1) of joined pieces of options to a target that was itself cut into pieces."""
_MAX_TAIL = 200
"""The maximum number of characters that may follow a list without a heading: a request for the answer."""
_MAX_CONTINUED = 10
"""The maximum number of lines of one option."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one input, in order. `letters` is empty for a bulleted list."""

    letters: tuple[str, ...]
    texts: tuple[str, ...]

    def hold(self, target: str) -> bool:
        """True if the target is one of these options, by letter or by text."""
        letter = letter_of(target)
        return letter in self.letters or condensed(target) in {condensed(text) for text in self.texts}


def condensed(text: str) -> str:
    """The text without white space and case, by which answers are compared."""
    return "".join(text.split()).casefold()


def letter_of(target: str) -> str | None:
    """The letter of a target such as "(B)", "B." or "B"; None for any other target."""
    match = _LETTER_TARGET.fullmatch(target)
    return match.group(2) if match else None


def parse_options(text: str) -> Options | None:
    """The options that a text lists, or None.

    They are the lines "(A) text" (also "A) text", "A. text"), "1. text" or "- text" after the last heading,
    such as "Options:" or "Answer choices:", that such lines follow. Without a heading, they are the last
    lines that count from A or 1 and that at most a short request for the answer follows. Numbers are no
    letters: an option behind a number is known by its text.
    """
    for heading in reversed(list(_HEADING.finditer(text))):
        items = _below_heading(text[heading.end() :].strip().split("\n"))
        if items:
            return _options(items)
    items = _without_heading(text, _LETTERED)
    if not items and _ANY_LETTER.search(text) is None:
        items = _without_heading(text, _NUMBERED)
    return _options(items) if items else None


@dataclass(slots=True)
class _Item:
    """A listed option. `style` is what its mark looks like without its letter: "()", ")", "." or "-"."""

    style: str
    mark: str
    text: str


def _options(items: Sequence[_Item]) -> Options:
    letters = tuple(item.mark for item in items if "A" <= item.mark <= "Z")
    return Options(letters, tuple(item.text for item in items))


def _item(line: str) -> _Item | None:
    stripped = line.strip()
    bullet = _BULLETED.fullmatch(stripped)
    if bullet is not None:
        return _Item("-", "", bullet[1])
    match = _LETTERED.fullmatch(stripped) or _NUMBERED.fullmatch(stripped)
    return None if match is None else _Item(match[1] + match[3], match[2], match[4])


def _kind(item: _Item) -> str:
    return "-" if not item.mark else "A" if item.mark.isupper() else "1" if item.mark.isdecimal() else "a"


def _next(mark: str) -> str:
    return str(int(mark) + 1) if mark.isdecimal() else chr(ord(mark) + 1)


def _below_heading(lines: Sequence[str]) -> list[_Item]:
    """The options at the start of the lines below a heading. Blank lines may stand between them, and an
    option may have several lines if the next one in order follows."""
    first = _item(lines[0])
    if first is None:
        return []
    items = [first]
    number = 1
    while number < len(lines):
        item = _item(lines[number])
        if item is not None and _kind(item) == _kind(first):
            items.append(item)
            number += 1
            continue
        following = _following(lines, number, items[-1])
        if following is None:
            break
        continued = [line.strip() for line in lines[number:following] if line.strip()]
        items[-1].text = "\n".join([items[-1].text, *continued])
        number = following
    return _inline(first) if len(items) == 1 else items


def _following(lines: Sequence[str], start: int, last: _Item) -> int | None:
    """The number of the line with the option after `last`, if only blank lines, or lines of `last`, are
    before it; None if there is none."""
    for number in range(start, min(start + _MAX_CONTINUED, len(lines))):
        item = _item(lines[number])
        if item is not None and item.style == last.style:
            in_order = (
                item.mark == _next(last.mark) if last.mark else not any(map(str.strip, lines[start:number]))
            )
            return number if in_order else None
    return None


def _inline(first: _Item) -> list[_Item]:
    """The options that stand on one line: "(A) one (B) two"."""
    items = [first]
    while first.mark.isupper():
        last = items[-1]
        start, end = map(re.escape, ("(", ")") if last.style == "()" else ("", last.style))
        mark = re.search(rf"(?<!\S){start}{_next(last.mark)}{end}\s+", last.text)
        if mark is None:
            break
        items.append(_Item(last.style, _next(last.mark), last.text[mark.end() :]))
        last.text = last.text[: mark.start()].strip().rstrip(",;")
    return items


def _without_heading(text: str, pattern: re.Pattern[str]) -> list[_Item]:
    """The last lines of a text that count from the first mark of `pattern`, at least two, with at most a
    short line behind them."""
    lines = text.split("\n")
    for number in range(len(lines) - 1, -1, -1):
        match = pattern.fullmatch(lines[number].strip())
        if match is None or match[2] not in ("A", "1", "a") or match[3] == ":" or not match[4]:
            continue
        items, end = [_Item(match[1] + match[3], match[2], match[4])], number + 1
        for position in range(number + 1, len(lines)):
            item = _item(lines[position])
            if item is not None and (item.style, item.mark) == (items[-1].style, _next(items[-1].mark)):
                items.append(item)
                end = position + 1
            elif lines[position].strip():
                break
        tail = [line.strip() for line in lines[end:] if line.strip()]
        return items if len(items) > 1 and len(tail) < 2 and len("".join(tail)) <= _MAX_TAIL else []
    return []


def wrong_options(text: str, target: str, letters: Sequence[str]) -> tuple[str, ...]:
    """The options of an input that are not its target, in the target's form.

    `letters` are those that occur as targets anywhere in the task; they are used if the input lists no second
    option. The result is empty if there are neither.
    """
    options = parse_options(text)
    letter = letter_of(target)
    if letter is not None and (options is None or options.letters):
        listed = options.letters if options is not None else ()
        wrong = _wrong_letters(options, letter) if options is not None else ()
        wrong = wrong or tuple(other for other in letters if other != letter and other not in listed)
        before, after = target.split(letter)
        return tuple(before + other + after for other in wrong)
    if options is None:
        return ()
    key = condensed(target)
    if any(condensed(option) == key for option in options.texts):
        return tuple(option for option in options.texts if condensed(option) != key)
    return _regrouped(options.texts, target)


def _wrong_letters(options: Options, letter: str) -> tuple[str, ...]:
    text_by_letter = dict(zip(options.letters, options.texts, strict=True))
    right = condensed(text_by_letter.get(letter, ""))
    return tuple(
        other
        for other, text in text_by_letter.items()
        if other != letter and (not right or condensed(text) != right)
    )


def _regrouped(pieces: Sequence[str], target: str) -> tuple[str, ...]:
    """The wrong options of a list that was cut at the commas inside its options.

    The pieces of the target are removed. Runs of the remaining pieces that are similar to the target are
    joined to options again; if there are none, each piece is an option.
    """
    key = condensed(target)
    longest = target.count(",") + 1
    runs = [
        (start, end, ", ".join(pieces[start:end]))
        for start in range(len(pieces))
        for end in range(start + 1, min(start + longest, len(pieces)) + 1)
    ]
    target_span = next(((start, end) for start, end, text in runs if condensed(text) == key), (0, 0))
    free = set(range(len(pieces))) - set(range(*target_span))
    joined: list[tuple[int, str]] = []
    by_similarity = sorted(
        ((_similarity(text, target), -start, end, text) for start, end, text in runs), reverse=True
    )
    for similarity, minus_start, end, text in by_similarity:
        span = set(range(-minus_start, end))
        if similarity >= _SIMILAR and span <= free and condensed(text) != key:
            free -= span
            joined.append((-minus_start, text))
    if joined:
        return tuple(text for _, text in sorted(joined))
    return tuple(pieces[index] for index in sorted(free) if condensed(pieces[index]) != key)


def _similarity(text: str, target: str) -> float:
    return SequenceMatcher(None, text, target, autojunk=False).ratio()
