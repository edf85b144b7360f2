"""Small changes that turn a right answer into a wrong one.

Invariants: a changed answer has the form of the original (a number stays a number, a bracket sequence a
bracket sequence); words change places only where their order is the answer; all randomness comes from the
generator that the caller passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from random import Random
from typing import Literal, TypeVar

from pmpo_ray.tasks.options import condensed

Form = Literal["number", "brackets", "text"]
Item = TypeVar("Item")

_NUMBER = re.compile(r"([-+]?)(\$?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,30})(?:\.([0-9]{1,30}))?(%?)")
_NUMBER_IN_TEXT = re.compile(
    r"(?<![\w.,])(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,30})(?:\.[0-9]{1,30})?(?![\w]|[.,][0-9])"
)
_BRACKETS = "()[]{}<>"
_FINAL_NUMBER = re.compile(r"####\s*(\S+)\s*\Z")
_FINAL_LETTER = re.compile(r"\(([A-Z])\)(?=\W*\Z)")
_STEPS = (1, 2, 3, 10)
_WORD = re.compile(r"[^\W_]+")
_CONNECTIVES = frozenset({"and", "or"})
_SEPARATORS = re.compile(r"[\s,;]+")
_ASKS_FOR_ORDER = re.compile(
    r"\b(?:sort|order|re-?order|arrang|alphabetic|chronologic|ascending|descending|rank|revers)",
    re.IGNORECASE,
)
_OPPOSITES = (("true", "false"), ("yes", "no"), ("valid", "invalid"))


def shuffled(items: Sequence[Item], rng: Random) -> list[Item]:
    """The items in random order. It uses only `Random.random`, whose values are the same in all Python
    versions."""
    return sorted(items, key=lambda _: rng.random())


def form_of(target: str) -> Form:
    """The form of a target: a number, a sequence of brackets, or any other text."""
    if _NUMBER.fullmatch(target):
        return "number"
    return "brackets" if target.strip(_BRACKETS + " ") == "" else "text"


def answer_key(text: str) -> str:
    """A key that is equal for two texts with the same answer: the same number, or the same text apart from
    white space and case."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return condensed(text)
    sign, currency, whole, decimals, percent = match.groups()
    value = Fraction(f"{sign}{whole.replace(',', '')}.{decimals or 0}")
    return f"{currency}{value}{percent}"


def meaning_key(text: str) -> str:
    """A key that is equal for two texts that may mean the same, such as "dogs and cats" and "cats, dogs": the
    same words in any order, apart from "and" and "or". A text without words has its `answer_key`."""
    words = [word for word in _WORD.findall(text.casefold()) if word not in _CONNECTIVES]
    return answer_key(text) if form_of(text) != "text" or not words else " ".join(sorted(words))


def is_ordering(text: str, target: str) -> bool:
    """True if the order of the target's words is the answer: they are those after the last colon of an input
    that asks for an order."""
    words = _words(target)
    return (
        len(words) > 1
        and not _CONNECTIVES.intersection(words)
        and _ASKS_FOR_ORDER.search(text) is not None
        and sorted(words) == sorted(_words(text.rpartition(":")[2]))
    )


def _words(text: str) -> list[str]:
    return [word for word in _SEPARATORS.split(text.casefold()) if word]


def final_answer(text: str) -> str | None:
    """The final answer of a worked solution, from its "#### N" or its last "(X)"; None for other texts."""
    if number := _FINAL_NUMBER.search(text):
        return answer_key(number.group(1))
    letter = _FINAL_LETTER.search(text)
    return letter.group(1) if letter else None


def corrupted(target: str, letters: Sequence[str], rng: Random, *, ordering: bool) -> Iterator[str]:
    """Wrong answers made from a right one, in random order; `letters` are those of the input's options, and
    with `ordering` the order of the words is the answer.

    They may be equal to the target or to each other: the caller takes as many distinct ones as it needs.
    """
    form = form_of(target)
    final = _FINAL_LETTER.search(target)
    if form == "number":
        yield from changed_numbers(target, rng)
    elif form == "brackets":
        yield from changed_brackets(target, rng)
    elif opposite := _opposite(target):
        yield opposite
    elif final is not None and final.group(1) in letters:
        for letter in shuffled(letters, rng):
            yield target[: final.start(1)] + letter + target[final.end(1) :]
    else:
        yield from _renumbered(target, rng)
        if ordering:
            yield from _swapped_words(target, rng)


def changed_numbers(target: str, rng: Random) -> list[str]:
    """Numbers a few units of the last place away, in the same notation. A number that is not negative does
    not become negative."""
    match = _NUMBER.fullmatch(target)
    if match is None:
        return []
    sign, currency, whole, decimals, percent = match.groups()
    places = len(decimals or "")
    value = int(whole.replace(",", "") + (decimals or "")) * (-1 if sign == "-" else 1)
    values = [value + step for step in _STEPS] + [value - step for step in _STEPS]
    if value < 0:
        values.append(-value)
    else:
        values = [other for other in values if other >= 0]

    def written(scaled: int) -> str:
        digits = str(abs(scaled)).rjust(places + 1, "0")
        integer = int(digits[: len(digits) - places])
        head = f"{integer:,}" if "," in whole else str(integer)
        tail = f".{digits[len(digits) - places :]}" if places else ""
        return f"{'-' if scaled < 0 else ''}{currency}{head}{tail}{percent}"

    return shuffled([written(other) for other in values], rng)


def changed_brackets(target: str, rng: Random) -> list[str]:
    """Sequences with one bracket of another type, with two brackets swapped, or with one dropped."""
    separator = " " if " " in target else ""
    brackets = [character for character in target if character in _BRACKETS]
    changed: list[list[str]] = []
    for index, bracket in enumerate(brackets):
        side = _BRACKETS.index(bracket) % 2
        changed += [
            [*brackets[:index], other, *brackets[index + 1 :]]
            for other in _BRACKETS[side::2]
            if other != bracket
        ]
        changed.append(brackets[:index] + brackets[index + 1 :])
        if index and brackets[index - 1] != bracket:
            changed.append([*brackets[: index - 1], bracket, brackets[index - 1], *brackets[index + 1 :]])
    return shuffled([separator.join(sequence) for sequence in changed if sequence], rng)


def _renumbered(target: str, rng: Random) -> Iterator[str]:
    """The text with its last number changed wherever it occurs."""
    numbers = _NUMBER_IN_TEXT.findall(target)
    for other in changed_numbers(numbers[-1], rng) if numbers else ():
        pieces = _NUMBER_IN_TEXT.split(target)
        changed = [other if number == numbers[-1] else number for number in numbers]
        yield "".join(piece + number for piece, number in zip(pieces, [*changed, ""], strict=True))


def _swapped_words(target: str, rng: Random) -> Iterator[str]:
    """The text with two different words swapped: eight random pairs, then the first and the last word."""
    words = list(re.finditer(r"\S+", target))
    pairs = [sorted(int(rng.random() * len(words)) for _ in range(2)) for _ in range(8)]
    for first, second in [*pairs, [0, -1]]:
        left, right = words[first], words[second]
        if left.group() != right.group():
            middle = target[left.end() : right.start()]
            yield target[: left.start()] + right.group() + middle + left.group() + target[right.end() :]


def _opposite(target: str) -> str | None:
    """The opposite of true, false, yes, no, valid or invalid, in the case of the target; None for other
    texts."""
    for pair in _OPPOSITES:
        if target.lower() in pair:
            other = pair[1 - pair.index(target.lower())]
            if target.isupper():
                return other.upper()
            return other.capitalize() if target[0].isupper() else other
    return None
