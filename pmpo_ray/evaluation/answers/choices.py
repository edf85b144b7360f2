"""Readers of answers from a closed set of texts.

Invariants: a text matches as whole words only, and the longest match wins ("invalid" is not "valid", "bug
report" is not "bug"); a choice that the reply denies is never read as its answer; two different answers count
as no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pmpo_ray.evaluation.answers.marks import UNREADABLE, Mark, beginnings, first_line, first_sentence, plain
from pmpo_ray.evaluation.answers.negation import Negation, asks, negation
from pmpo_ray.evaluation.answers.numerals import SPACED, UNSPACED, standard
from pmpo_ray.tasks.options import condensed

PIECE = re.compile(r"[^\W_]+")
_GAP = 3
"""Number of signs and spaces that are always accepted between two words of a text."""
_GOES_ON = re.compile(
    r"\s*(?:[^\w\s]|\Z|(?:because|since|as|it|this|that|the|these|those|he|she|they|we|you|i)\b)",
    re.IGNORECASE,
)
_OR = re.compile(r"[\s,]*(?:\bor\b|/|\band/or\b)[\s'(]*", re.IGNORECASE)
_NAMED = re.compile(r"(?:[A-Za-z]+ ){0,2}[A-Za-z]+\s?:\s*")


@dataclass(frozen=True, slots=True)
class Occurrence:
    """An occurrence of choice number `index` in a text, and how the words before it deny it."""

    index: int
    start: int
    end: int
    negation: Negation


class Choices:
    """The texts to choose from. Texts that are the same answer are represented by the first of them."""

    def __init__(self, texts: Sequence[str]) -> None:
        plains = [plain(standard(text)).strip() for text in texts]
        pieces = [" ".join(PIECE.findall(text)).casefold() for text in plains]
        first = {condensed(text): index for index, text in reversed(list(enumerate(plains)))}
        order = sorted(first.values(), key=lambda index: len(plains[index]), reverse=True)
        patterns = [
            f"(?P<c{index}>{_pattern(plains[index], verbatim=pieces.count(pieces[index]) > 1)})"
            for index in order
            if plains[index]
        ]
        self._alternatives = "|".join(patterns) or r"(?!)"

    # Compiling the ranges of scripts without blanks takes most of a reader's time, and few texts hold them.
    @cached_property
    def _of_spaced_texts(self) -> re.Pattern[str]:
        return self._compiled(r"[^\W_]")

    @cached_property
    def _of_all_texts(self) -> re.Pattern[str]:
        return self._compiled(SPACED)

    def _compiled(self, letter: str) -> re.Pattern[str]:
        """The pattern of all choices. No choice begins or ends within a word of these letters."""
        begin, end = f"(?:(?<!{letter})|(?!{letter}))", f"(?:(?!{letter})|(?<!{letter}))"
        return re.compile(f"{begin}(?:{self._alternatives}){end}", re.IGNORECASE)

    def _pattern(self, text: str) -> re.Pattern[str]:
        return self._of_all_texts if UNSPACED.search(text) else self._of_spaced_texts

    def occurrences(self, text: str) -> Iterator[Occurrence]:
        """All occurrences of choices in a text, without overlaps."""
        for match in self._pattern(text).finditer(text):
            if not _is_determiner(match):
                yield Occurrence(_index(match), match.start(), match.end(), negation(text, *match.span()))

    def leading(self, line: str) -> tuple[int, str] | None:
        """The choice at the beginning of a line, after fillers, and the rest of the line."""
        for beginning in beginnings(line):
            beginning = beginning.lstrip("('[")
            match = self._pattern(beginning).match(beginning)
            if match is not None and not _is_determiner(match):
                return (
                    None if asks(match.string, match.end()) else (_index(match), match.string[match.end() :])
                )
        return None

    def single(self, text: str, opposites: bool) -> int | None:
        """The choice that a text names, if it names exactly one. With `opposites` there are two choices, and
        denying one directly names the other."""
        named = set()
        for occurrence in self.occurrences(text):
            if occurrence.negation == "none":
                named.add(occurrence.index)
            elif occurrence.negation == "direct" and opposites:
                named.add(1 - occurrence.index)
        return named.pop() if len(named) == 1 else None


def _pattern(text: str, verbatim: bool) -> str:
    """The pattern of a text, which ignores case and punctuation. Punctuation counts between digits, and if
    two texts have the same words ("C" and "C++"; `verbatim`)."""
    pieces = list(PIECE.finditer(text))
    if verbatim or not pieces:
        return _bounded(re.escape(text), text)
    sign = re.search(r"[-−]\Z", text[: pieces[0].start()]) if pieces[0].group()[0].isdigit() else None
    pattern = "[-−]" if sign else ""
    for piece, after in zip(pieces, [*pieces[1:], None], strict=True):
        pattern += re.escape(piece.group())
        if after is not None:
            gap = text[piece.end() : after.start()]
            digits = piece.group()[-1].isdigit() and after.group()[0].isdigit()
            pattern += re.escape(gap) if digits else rf"[\W_]{{0,{max(len(gap), _GAP)}}}"
    bounded = _bounded(pattern, text[pieces[0].start() : pieces[-1].end()] if not sign else "-")
    # A choice that is itself a question is not asked about by its own mark.
    asked = re.search("[?？]", text[pieces[-1].end() :])
    return bounded + r"(?:\s?[?？])?" if asked else bounded


def _bounded(pattern: str, text: str) -> str:
    """The pattern of a text, restricted to whole numbers."""
    if text[0].isdigit():
        pattern = r"(?<![0-9][.,/:])(?<![-−])" + pattern
    if text[-1].isalnum() and not UNSPACED.match(text[-1]):
        pattern += r"(?![.,/:][0-9])"
    return pattern


def _index(match: re.Match[str]) -> int:
    return int((match.lastgroup or "c0")[1:])


def _is_determiner(match: re.Match[str]) -> bool:
    """True for a "no" that belongs to the next word, as in "no doubt"."""
    return match.group().lower() == "no" and not _GOES_ON.match(match.string, match.end())


def by_lines(leading: Sequence[str | None], wholes: Sequence[str | None]) -> str | None:
    """The answer in the first or the last line of a reply. `leading` are the answers at the beginning of its
    lines, `wholes` the answers that are whole lines. A list of the options, one per line, is no answer."""
    if not wholes:
        return None
    first, last = wholes[0], wholes[-1]
    distinct = {answer for answer in (*leading, *wholes) if answer is not None}
    if len(distinct) == 1:
        return leading[0] or last
    if last is not None and leading.count(last) > 1:
        return last
    if first is not None and last in (None, first) and set(leading[1:2]) <= {None, first}:
        return first
    return None


class Labels:
    """Reads one of a closed set of texts. The canonical form is the text as it is in the set."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._choices = Choices(labels)
        self._opposites = len(labels) == 2 and condensed(labels[0]) != condensed(labels[1])

    def canonical(self, text: str) -> str:
        """The label that is the same answer as a target."""
        key = condensed(standard(text))
        return next(label for label in self._labels if condensed(standard(label)) == key)

    def marked(self, mark: Mark) -> str | None:
        text = plain(mark.text)
        line = first_line(text)
        if mark.form == "exact":
            return self._whole(line)
        if leading := self._choices.leading(line):
            index, rest = leading
            other = self._choices.leading(rest[match.end() :]) if (match := _OR.match(rest)) else None
            return self._labels[index] if other is None else UNREADABLE
        return self._single(text if mark.form == "headed" else first_sentence(line))

    def unmarked(self, reply: str) -> str | None:
        text = plain(reply)
        lines = [line for line in text.split("\n") if line.strip()]
        answer = by_lines([self._leading(line) for line in lines], [self._whole(line) for line in lines])
        return answer or self._single(text)

    def _single(self, text: str) -> str | None:
        index = self._choices.single(text, self._opposites)
        return None if index is None else self._labels[index]

    def _whole(self, line: str) -> str | None:
        """The label that is the whole line, as in "Sentiment: positive."."""
        for start in tails(line):
            leading = self._choices.leading(start)
            if leading is not None and not PIECE.search(leading[1]):
                return self._labels[leading[0]]
        return None

    def _leading(self, line: str) -> str | None:
        for start in tails(line):
            leading = self._choices.leading(start)
            if leading is not None and _GOES_ON.match(leading[1]) and not _OR.match(leading[1]):
                return self._labels[leading[0]]
        return None


def tails(line: str) -> Iterator[str]:
    """A line, and its rest after a few words and a colon."""
    yield line
    if match := _NAMED.match(line.lstrip(" #>-*")):
        yield match.string[match.end() :]
