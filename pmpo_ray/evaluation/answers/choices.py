"""Readers of answers from a closed set of texts: labels, and options named by their letter or their text.

Invariants: a text matches as whole words only, and the longest match wins ("invalid" is not "valid", "bug
report" is not "bug"); a choice that the reply denies is never read as its answer; two different answers count
as no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pmpo_ray.evaluation.answers.marks import UNREADABLE, Mark, beginnings, first_line, first_sentence, plain
from pmpo_ray.evaluation.answers.values import Numbers, only_number
from pmpo_ray.tasks.options import condensed

_PIECE = re.compile(r"[^\W_]+")
_GAP = 3
"""Number of signs and spaces that are always accepted between two words of a text."""
_CLAUSE = re.compile(r"[.,;:!?\n—]|\b(?:but|so|hence|therefore|thus|because)\b", re.IGNORECASE)
_DIRECTLY = re.compile(
    r"(?:\b(?:not|non|cannot)|n['’]t)[\s('‘-]{1,3}"
    r"(?:(?:a|an|the|be|considered|deductively|logically|formally|really)\s){0,3}[\s('‘]{0,3}\Z",
    re.IGNORECASE,
)
_SOMEHOW = re.compile(
    r"\b(?:not|never|neither|nor|cannot|without|unlike|hardly|rather than|instead of|no)\b|n['’]t\b",
    re.IGNORECASE,
)
_BEFORE = 80
"""Number of characters before a text in which a negation counts."""
_GOES_ON = re.compile(
    r"\s*(?:[^\w\s]|\Z|(?:because|since|as|it|this|that|the|these|those|he|she|they|we|you|i)\b)",
    re.IGNORECASE,
)
_OR = re.compile(r"[\s,]*(?:\bor\b|/|\band/or\b)[\s'(]*", re.IGNORECASE)
_NAMED = re.compile(r"(?:[A-Za-z]+ ){0,2}[A-Za-z]+\s?:\s*")

Negation = Literal["none", "direct", "other"]


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
        plains = [plain(text).strip() for text in texts]
        pieces = [" ".join(_PIECE.findall(text)).casefold() for text in plains]
        first = {condensed(text): index for index, text in reversed(list(enumerate(plains)))}
        order = sorted(first.values(), key=lambda index: len(plains[index]), reverse=True)
        patterns = [
            f"(?P<c{index}>{_pattern(plains[index], verbatim=pieces.count(pieces[index]) > 1)})"
            for index in order
            if plains[index]
        ]
        self._pattern = re.compile("|".join(patterns) or r"(?!)", re.IGNORECASE)

    def occurrences(self, text: str) -> Iterator[Occurrence]:
        """All occurrences of choices in a text, without overlaps."""
        for match in self._pattern.finditer(text):
            if not _is_determiner(match):
                yield Occurrence(_index(match), match.start(), match.end(), _negation(text, match.start()))

    def leading(self, line: str) -> tuple[int, str] | None:
        """The choice at the beginning of a line, after fillers, and the rest of the line."""
        for beginning in beginnings(line):
            match = self._pattern.match(beginning.lstrip("('["))
            if match is not None and not _is_determiner(match):
                return _index(match), match.string[match.end() :]
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
    pieces = list(_PIECE.finditer(text))
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
    return _bounded(pattern, text[pieces[0].start() : pieces[-1].end()] if not sign else "-")


def _bounded(pattern: str, text: str) -> str:
    """The pattern of a text, restricted to whole words and numbers."""
    if text[0].isalnum():
        pattern = r"(?<![^\W_])" + pattern
    if text[0].isdigit():
        pattern = r"(?<![0-9][.,/:])(?<![-−])" + pattern
    if text[-1].isalnum():
        pattern += r"(?![^\W_])(?![.,/:][0-9])"
    return pattern


def _index(match: re.Match[str]) -> int:
    return int((match.lastgroup or "c0")[1:])


def _is_determiner(match: re.Match[str]) -> bool:
    """True for a "no" that belongs to the next word, as in "no doubt"."""
    return match.group().lower() == "no" and not _GOES_ON.match(match.string, match.end())


def _negation(text: str, start: int) -> Negation:
    before = text[max(0, start - _BEFORE) : start]
    if _DIRECTLY.search(before):
        return "direct"
    clause = _CLAUSE.split(before)[-1]
    return "other" if _SOMEHOW.search(clause) else "none"


def _by_lines(leading: Sequence[str | None], wholes: Sequence[str | None]) -> str | None:
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
        return next(label for label in self._labels if condensed(label) == condensed(text))

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
        answer = _by_lines([self._leading(line) for line in lines], [self._whole(line) for line in lines])
        return answer or self._single(text)

    def _single(self, text: str) -> str | None:
        index = self._choices.single(text, self._opposites)
        return None if index is None else self._labels[index]

    def _whole(self, line: str) -> str | None:
        """The label that is the whole line, as in "Sentiment: positive."."""
        for start in _tails(line):
            leading = self._choices.leading(start)
            if leading is not None and not _PIECE.search(leading[1]):
                return self._labels[leading[0]]
        return None

    def _leading(self, line: str) -> str | None:
        for start in _tails(line):
            leading = self._choices.leading(start)
            if leading is not None and _GOES_ON.match(leading[1]) and not _OR.match(leading[1]):
                return self._labels[leading[0]]
        return None


def _tails(line: str) -> Iterator[str]:
    """A line, and its rest after a few words and a colon."""
    yield line
    if match := _NAMED.match(line.lstrip(" #>-*")):
        yield match.string[match.end() :]


_LETTER = r"(?:\(\s?([A-Za-z])\s?\)|\[\s?([A-Za-z])\s?\]|(?<![^\W_])([A-Za-z])(?![^\W_]|['’]))"
_FORM = re.compile(r"(?P<word>(?i:the )?(?i:option|choice|letter|answer)[\s:]{1,3})?" + _LETTER)
_AFTER_LETTER = re.compile(r"\s*(?:\Z|[)\]]|[.:;!?](?:\s|\Z)|[-–—]\s|(?:because|since|as|which)\b)")
_BRACKETED = re.compile(r"(?<!\w)[(\[]([A-Z])[)\]]|\b(?i:option|choice)\s{1,3}[(\[]?([A-Z])\b")
_CALLED_RIGHT = re.compile(
    _LETTER + r"\s{1,3}(?:is|must be)\s(?:the\s)?(?:only\s|most\s)?(?:correct|right|best|answer)\b"
)
_WRONG = re.compile(
    r"\s*[:,-]?\s*(?:\w+\s)?(?:is|are|was|would be|can be|cannot be|can't be|isn't)\s?"
    r"(?:not\b|wrong|incorrect|false|ruled|eliminated|impossible|inconsistent)|\s*[:,-]?\s*(?:wrong|incorrect|false)\b",
    re.IGNORECASE,
)
_OR_LETTER = re.compile(r"\s*(?:,|,?\s*\b(?:or|and)\b|/|&)\s*(?i:option )?(?:[(\[][A-Z][)\]]|[B-HJ-Z]\b)")


class Letters:
    """Reads the letter of an option, or its text. The canonical form is the letter; options with the same
    text have the letter of the first. `texts` is empty if the input has no list of options."""

    def __init__(self, letters: Sequence[str], texts: Sequence[str]) -> None:
        self._letters = letters
        self._texts = texts
        keys = [condensed(text) or letter for letter, text in zip(letters, texts, strict=False)]
        self._same = {
            letter: letters[keys.index(keys[index])] if index < len(keys) else letter
            for index, letter in enumerate(letters)
        }
        # If a text is itself a letter of the list, a letter in a reply would be ambiguous.
        self._choices = Choices(["" if text.strip("()[]. ").upper() in letters else text for text in texts])

    def canonical(self, letter: str) -> str:
        """The canonical letter of an option."""
        return self._same[letter]

    def marked(self, mark: Mark) -> str | None:
        text = plain(mark.text)
        line = first_line(text)
        if _SOMEHOW.match(line.strip()):
            return None
        if leading := self._choices.leading(line):
            return self.canonical(self._letters[leading[0]])
        for beginning in beginnings(line):
            if form := self._form(beginning, marked=True):
                letter, rest = form
                if letter not in self._same or _OR_LETTER.match(rest):
                    return UNREADABLE
                if mark.form == "exact" and not self._matches_option(letter, rest):
                    return None
                return self.canonical(letter)
        if mark.form == "exact":
            return None
        scope = text if mark.form == "headed" else first_sentence(line)
        return self._single(scope) or self._equal(Numbers().marked(mark))

    def unmarked(self, reply: str) -> str | None:
        text = plain(reply)
        called = [
            letter
            for match in _CALLED_RIGHT.finditer(text)
            if (letter := _letter(match)) in self._same and not _denied(text, match)
        ]
        if called:
            return self.canonical(called[-1])
        lines = [line for line in text.split("\n") if line.strip()]
        leading, wholes = [self._leading(line) for line in lines], [self._whole(line) for line in lines]
        return _by_lines(leading, wholes) or self._single(text) or self._equal(only_number(reply))

    def _form(self, line: str, marked: bool) -> tuple[str, str] | None:
        """The letter at the beginning of a line, and the rest of the line. A bare letter may be a word ("A
        dog", "I think") or a name ("B works"): after it the line must end, or continue with the option's text
        or a sign, or, in a marked answer, with a word if the letter is neither A nor I."""
        match = _FORM.match(line)
        if match is None:
            return None
        letter, bare, rest = _letter(match), match.groups()[-1], line[match.end() :]
        if bare is None or match.group("word") is not None or _AFTER_LETTER.match(rest):
            return letter, rest
        if rest.startswith(",") and letter != "I":
            return letter, rest
        word_follows = marked and bare == letter and letter not in "AI" and re.match(r"\s+\w", rest)
        if letter in self._same and (word_follows or self._matches_option(letter, rest)):
            return letter, rest
        return None

    def _matches_option(self, letter: str, rest: str, whole: bool = False) -> bool:
        """True if the rest after a letter has no words, or begins with the text of the letter's option (with
        `whole`: has no other words)."""
        if not _PIECE.search(rest):
            return True
        leading = self._choices.leading(rest.lstrip(" :;.,)]-–—"))
        if leading is None or self._same.get(letter) != self._same[self._letters[leading[0]]]:
            return False
        return not (whole and _PIECE.search(leading[1]))

    def _leading(self, line: str) -> str | None:
        for start in (*beginnings(line), *_tails(line)):
            form = self._form(start, marked=False)
            if form is not None and form[0] in self._same and not _WRONG.match(form[1]):
                return None if _OR_LETTER.match(form[1]) else self.canonical(form[0])
        return self._whole_text(line)

    def _whole(self, line: str) -> str | None:
        for start in (*beginnings(line), *_tails(line)):
            form = self._form(start, marked=False)
            if form is not None and form[0] in self._same and self._matches_option(*form, whole=True):
                return self.canonical(form[0])
        return self._whole_text(line)

    def _whole_text(self, line: str) -> str | None:
        for start in _tails(line):
            leading = self._choices.leading(start)
            if leading is not None and not _PIECE.search(leading[1]):
                return self.canonical(self._letters[leading[0]])
        return None

    def _single(self, text: str) -> str | None:
        """The only option that a text names in brackets, or else the only one whose text it contains."""
        named = {
            self.canonical(letter)
            for match in _BRACKETED.finditer(text)
            if (letter := match.group(1) or match.group(2)) in self._same and not _denied(text, match)
        }
        if named:
            return named.pop() if len(named) == 1 else None
        index = self._choices.single(text, opposites=False)
        return None if index is None else self.canonical(self._letters[index])

    def _equal(self, number: str | None) -> str | None:
        """The only option whose text has this number, whatever its unit."""
        equal = {
            self.canonical(letter)
            for letter, text in zip(self._letters, self._texts, strict=False)
            if number and only_number(text) == number
        }
        return equal.pop() if len(equal) == 1 else None


def _letter(match: re.Match[str]) -> str:
    """The letter in a match of a pattern that contains `_LETTER`."""
    groups = match.groups()[-3:]
    return next(group for group in groups if group is not None).upper()


def _denied(text: str, match: re.Match[str]) -> bool:
    """True if the text around a match denies it."""
    return _negation(text, match.start()) != "none" or _WRONG.match(text, match.end()) is not None
