"""Reading the final answer from a model's reply, and comparing it with the target.

Invariants: an answer and a target are equal exactly if their canonical forms are; an unreadable answer is
None, never a wrong answer; a thought, and a reply that was cut off, have no answer; the last mark ("the
answer is", a box, ...) with a readable answer decides, and text outside marks counts only if there is no such
mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pmpo_ray.evaluation.answers.choices import Labels
from pmpo_ray.evaluation.answers.conclusions import withdrawal, without_check
from pmpo_ray.evaluation.answers.letters import Letters
from pmpo_ray.evaluation.answers.marks import Mark, Reader, marks
from pmpo_ray.evaluation.answers.numerals import has_decimal_comma, standard, whole_number
from pmpo_ray.evaluation.answers.polar import answering
from pmpo_ray.evaluation.answers.values import Brackets, Numbers, Text, Words, words_of
from pmpo_ray.tasks.corruptions import final_answer, form_of
from pmpo_ray.tasks.options import Options, condensed, letter_of, parse_options
from pmpo_ray.thoughts import parts
from pmpo_ray.types import Example, Task

AnswerKind = Literal["letter", "label", "number", "words", "brackets", "text"]


@dataclass(frozen=True, slots=True)
class _Reading:
    """The reader of answers to one example, and the target in canonical form."""

    kind: AnswerKind
    reader: Reader
    target: str
    point_groups: bool = False
    """True if points separate thousands in the input's language."""


class AnswerReader:
    """Reads answers to the examples of one task. The reader for an example, slow to build, is built once."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._labels = Labels(task.labels)
        self._readings: dict[Example, _Reading] = {}

    def kind(self, example: Example) -> AnswerKind:
        """The kind of answer to an example: the letter of an option (also if the target is the text of a
        lettered option), one of a closed set of texts, a number, an arrangement of the words of the input, a
        sequence of brackets, or any other text."""
        return self._reading(example).kind

    def read(self, text: str, example: Example, *, finished: bool = True) -> str | None:
        """The answer in a model's reply, in canonical form; None if none can be read. A reply that was cut
        off at its limit (not `finished`) has none: what would have followed can be another answer."""
        if not finished:
            return None
        reading = self._reading(example)
        reply = answer_part(text)
        plain = standard(reply, reading.point_groups or has_decimal_comma(reply))
        return _read(plain, reading.reader, reading.kind)

    def canonical_target(self, example: Example) -> str:
        """The target of an example in canonical form."""
        return self._reading(example).target

    def right(self, answer: str, example: Example) -> bool:
        """True if an answer, in canonical form, is the target's."""
        return answer == self.canonical_target(example)

    def _reading(self, example: Example) -> _Reading:
        if example not in self._readings:
            self._readings[example] = self._new_reading(example)
        return self._readings[example]

    def _new_reading(self, example: Example) -> _Reading:
        point_groups = has_decimal_comma(example.input)
        standardised = replace(
            example,
            input=standard(example.input, point_groups),
            target=standard(example.target, point_groups),
            negatives=tuple(standard(text, point_groups) for text in example.negatives),
        )
        return replace(self._reading_of(standardised), point_groups=point_groups)

    def _reading_of(self, example: Example) -> _Reading:
        if self._task.kind == "labels":
            return _of_label(self._task.labels, self._labels, example)
        if self._task.kind == "options":
            return _of_option(example)
        if self._task.kind == "text":
            return _of_text(example)
        return _as_text(example)


def _read(text: str, reader: Reader, kind: AnswerKind) -> str | None:
    """The answer in a reply in standard form."""
    if not text:
        return None
    found = marks(text)
    if kind == "text" and not found:
        return reader.unmarked(text) or None
    last = found[0].start if found else -1
    reply = without_check(text, last)
    taken = withdrawal(reply, last)
    first = _stated(taken.head, marks(taken.head), reader) if taken is not None else None
    if taken is None or first is None:
        return _stated(reply, found if reply == text else marks(reply), reader)
    if taken.confirmed or kind == "text":
        return first if taken.confirmed else None
    answer = reader.unmarked(taken.conclusion) if taken.conclusion else None
    # A number behind a doubt is a result only where the reply says so.
    return answer or (reader.unmarked(taken.tail) if kind != "number" else None) or None


def _stated(reply: str, found: Sequence[Mark], reader: Reader) -> str | None:
    """The answer that the last readable mark gives; without one, that of the whole reply."""
    for mark in found:
        answer = reader.marked(mark)
        if answer is not None:
            return answer or None
    return reader.unmarked(reply) or None


def answer_part(text: str) -> str:
    """The part of a reply behind its thoughts. If nothing stands there, a part before them counts that marks
    an answer, as in "<answer>B</answer><reasoning>...</reasoning>"."""
    found = parts(text)
    if found.behind is None:
        return ""
    return found.behind.strip() or (found.before.strip() if marks(found.before) else "")


def _of_label(labels: tuple[str, ...], reader: Labels, example: Example) -> _Reading:
    letters = [letter for label in labels if (letter := letter_of(standard(label))) is not None]
    letter = letter_of(example.target)
    if letter is not None and len(letters) == len(labels):
        return _lettered(letter, letters, parse_options(example.input))
    return _Reading("label", answering(example.input, labels, reader), reader.canonical(example.target))


def _of_option(example: Example) -> _Reading:
    options = parse_options(example.input)
    letter = letter_of(example.target)
    if letter is not None and (options is None or options.letters):
        others = [other for text in example.negatives if (other := letter_of(text)) is not None]
        listed = options.letters if options is not None and letter in options.letters else (letter, *others)
        return _lettered(letter, listed, options)
    texts = options.texts if options is not None else ()
    position = next((n for n, text in enumerate(texts) if condensed(text) == condensed(example.target)), None)
    if options is not None and options.letters and position is not None:
        return _lettered(options.letters[position], options.letters, options)
    # If the list was split at commas within options, the negatives have the whole options.
    choices = texts if position is not None else (example.target, *example.negatives)
    if len(choices) < 2:
        return _as_text(example)
    reader = Labels(choices)
    return _Reading("label", answering(example.input, choices, reader), reader.canonical(example.target))


def _lettered(letter: str, letters: tuple[str, ...] | list[str], options: Options | None) -> _Reading:
    by_letter = dict(zip(options.letters, options.texts, strict=True)) if options and options.letters else {}
    distinct = sorted({letter, *letters})
    reader = Letters(distinct, [by_letter.get(other, "") for other in distinct])
    return _Reading("letter", reader, reader.canonical(letter))


def _of_text(example: Example) -> _Reading:
    target = example.target
    final = final_answer(target)
    options = parse_options(example.input)
    letter = letter_of(target) or (letter_of(final) if final is not None else None)
    if letter is not None and options is not None and letter in options.letters:
        return _lettered(letter, options.letters, options)
    number = whole_number(target if final is None else final)
    if number is not None:
        return _Reading("number", Numbers(), number)
    if form_of(target) == "brackets":
        brackets = Brackets(example.input)
        return _Reading("brackets", brackets, brackets.canonical(target))
    listed, words = words_of(example.input.rpartition(":")[2]), words_of(target)
    if len(words) > 1 and sorted(words) == sorted(listed):
        return _Reading("words", Words(listed), " ".join(words))
    return _as_text(example)


def _as_text(example: Example) -> _Reading:
    reader = Text(example.target)
    # Read like a reply: a target such as "The answer is 5 m" is compared as "5 m".
    return _Reading("text", reader, _read(example.target, reader, "text") or condensed(example.target))
