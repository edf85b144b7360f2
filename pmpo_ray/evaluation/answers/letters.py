"""Reader of options that are named by their letter or their text.

Invariants: as those of `choices`; a bare letter that may be a word, such as "a", is an answer only where no
sentence goes on with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pmpo_ray.evaluation.answers.choices import PIECE, Choices, by_lines, tails
from pmpo_ray.evaluation.answers.marks import UNREADABLE, Mark, beginnings, first_line, first_sentence, plain
from pmpo_ray.evaluation.answers.negation import asks, begins_with_denial, negation
from pmpo_ray.evaluation.answers.numerals import BORDER, END, only_number
from pmpo_ray.evaluation.answers.values import Numbers
from pmpo_ray.tasks.options import condensed

_LETTER = rf"(?:\(\s?([A-Za-z])\s?\)|\[\s?([A-Za-z])\s?\]|{BORDER}([A-Za-z])(?!['’]){END})"
_FORM = re.compile(r"(?P<word>(?i:the )?(?i:option|choice|letter|answer)[\s:]{1,3})?" + _LETTER)
_AFTER_LETTER = re.compile(
    r"\s*(?:\Z|[)\]]|[.:;!?](?:\s|\Z)|[。，、；：！？]|[-–—]\s|(?:because|since|as|which)\b)"
)
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
        if begins_with_denial(line.strip()):
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
        return by_lines(leading, wholes) or self._single(text) or self._equal(only_number(reply))

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
        if not PIECE.search(rest):
            return True
        leading = self._choices.leading(rest.lstrip(" :;.,)]-–—"))
        if leading is None or self._same.get(letter) != self._same[self._letters[leading[0]]]:
            return False
        return not (whole and PIECE.search(leading[1]))

    def _leading(self, line: str) -> str | None:
        for start in (*beginnings(line), *tails(line)):
            form = self._form(start, marked=False)
            if form is not None and form[0] in self._same and not (_WRONG.match(form[1]) or asks(form[1], 0)):
                return None if _OR_LETTER.match(form[1]) else self.canonical(form[0])
        return self._whole_text(line)

    def _whole(self, line: str) -> str | None:
        for start in (*beginnings(line), *tails(line)):
            form = self._form(start, marked=False)
            if form is not None and form[0] in self._same and self._matches_option(*form, whole=True):
                return self.canonical(form[0])
        return self._whole_text(line)

    def _whole_text(self, line: str) -> str | None:
        for start in tails(line):
            leading = self._choices.leading(start)
            if leading is not None and not PIECE.search(leading[1]):
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
    return negation(text, match.start(), match.end()) != "none" or _WRONG.match(text, match.end()) is not None
