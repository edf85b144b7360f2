"""Answer options listed in an input, and the wrong ones among them.

Invariants: a wrong option never has the text of the right one under another letter. It has the target's form:
a letter if the target is a letter, the option's text if it is a text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_HEADING = re.compile(r"\boptions:", re.IGNORECASE)
_LETTERED = re.compile(r"\(?([A-Z])[).]\s*(.*)")
_BULLETED = re.compile(r"[-*]\s+(.*)")
_LETTER_TARGET = re.compile(r"(\(?)([A-Z])([).]?)")
_SIMILAR = 0.6
"""The minimum similarity (0 to 1) of joined pieces of options to a target that was itself cut into pieces."""


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
    """The lines "(A) text" (also "A) text", "A. text") or "- text" after the last "Options:" of a text."""
    headings = list(_HEADING.finditer(text))
    if not headings:
        return None
    letters: list[str] = []
    texts: list[str] = []
    bulleted: bool | None = None
    for line in text[headings[-1].end() :].strip().split("\n"):
        bullet, lettered = _BULLETED.fullmatch(line.strip()), _LETTERED.fullmatch(line.strip())
        if bullet is not None and bulleted is not False:
            bulleted = True
            texts.append(bullet.group(1))
        elif lettered is not None and bulleted is not True:
            bulleted = False
            letters.append(lettered.group(1))
            texts.append(lettered.group(2))
        else:
            break
    return Options(tuple(letters), tuple(texts)) if texts else None


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
