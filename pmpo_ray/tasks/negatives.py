"""The negatives y- of every row.

Invariants: negatives are not empty, and differ from every right answer and from each other as answers (white
space, case and the notation of a number do not count). They depend on the seed, the task's name, the row
itself and the set of the other rows, not on the order of the rows. Those of free text are made only for the
examples that need them, because they take most of the time of loading.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from pmpo_ray.errors import DataError
from pmpo_ray.tasks.corruptions import (
    Form,
    answer_key,
    corrupted,
    final_answer,
    form_of,
    is_ordering,
    meaning_key,
    shuffled,
)
from pmpo_ray.tasks.example_ids import content_id
from pmpo_ray.tasks.options import letter_of, parse_options, wrong_options
from pmpo_ray.tasks.rows import Row
from pmpo_ray.types import Example, Kind, Task

HARD_NEGATIVES = 4
_WINDOW = 16
"""The number of shorter and of longer targets, nearest in length, from which hard negatives are drawn."""


@dataclass(frozen=True, slots=True)
class TaskAnswers:
    """The answers of a task, from which negatives are drawn: the other labels of each label, the letters that
    occur as targets, and the distinct targets of each form, by length."""

    others: Mapping[str, tuple[str, ...]]
    letters: tuple[str, ...]
    targets: Mapping[Form, tuple[tuple[int, str], ...]]


def task_answers(targets: Iterable[str], labels: Sequence[str] = ()) -> TaskAnswers:
    """The answers of a task with these targets. With `labels`, which have no two spellings of one label, the
    targets are not needed."""
    if labels:
        others = {label: tuple(other for other in labels if other != label) for label in labels}
        return TaskAnswers(others, (), {})
    by_form: dict[Form, list[tuple[int, str]]] = {"number": [], "brackets": [], "text": []}
    letters = set()
    for target in set(targets):
        by_form[form_of(target)].append((len(target), target))
        letters.add(letter_of(target))
    return TaskAnswers(
        others={},
        letters=tuple(sorted(letter for letter in letters if letter is not None)),
        targets={form: tuple(sorted(members)) for form, members in by_form.items()},
    )


def negatives_of(row: Row, kind: Kind, answers: TaskAnswers) -> tuple[str, ...]:
    """The negatives of one row: those in the data for pairs, the wrong options, or the other labels. Empty
    for free text, and for an input without options.

    Raises DataError for a pair without a usable negative, and for a target outside the label set.
    """
    if kind == "text":
        return ()
    if kind == "options":
        return distinct((row.target,), wrong_options(row.input, row.target, answers.letters))
    if kind == "pairs":
        usable = distinct((row.target,), row.negatives)
        if not usable:
            raise DataError(
                f"{row.where}: no negative that differs from the target; add one or remove the row"
            )
        return usable
    if row.target not in answers.others:
        known = ", ".join(answers.others)
        raise DataError(
            f"{row.where}: target {row.target[:60]!r} is none of the labels {known}; fix the target or "
            "the labels"
        )
    return answers.others[row.target]


def with_hard_negatives(task: Task, examples: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """The examples of a task, with hard negatives for those that have none. An example stays without if the
    task has no other answer and its own cannot be made wrong for sure."""
    if all(example.negatives for example in examples):
        return tuple(examples)
    answers = task_answers(example.target for example in task.examples)
    return tuple(
        example
        if example.negatives
        else replace(
            example, negatives=hard_negatives(example, answers, negatives_rng(task.name, example, seed))
        )
        for example in examples
    )


def negatives_rng(task: str, example: Example, seed: int) -> Random:
    """The generator from which the negatives of an example are drawn."""
    return Random(f"negatives:{seed}:{task}:{content_id(example.input, example.target)}")


def hard_negatives(example: Example, answers: TaskAnswers, rng: Random) -> tuple[str, ...]:
    """`HARD_NEGATIVES` wrong answers, or fewer if there are no more: one half corruptions of the target, the
    other half targets of other examples that are about as long. If one half has too few, the other half has
    more. Answers that may mean the same as a right one are not among them."""
    target, right = example.target, (example.target, *example.also_right)
    options, ordering = parse_options(example.input), is_ordering(example.input, example.target)
    changed = corrupted(target, options.letters if options else (), rng, ordering=ordering)
    corruptions = distinct(right, changed, HARD_NEGATIVES, ordering=ordering)
    others = distinct(right, _neighbours(target, answers, rng), HARD_NEGATIVES, ordering=ordering)
    half = HARD_NEGATIVES // 2
    ordered = (*corruptions[:half], *others[:half], *corruptions[half:], *others[half:])
    return distinct(right, ordered, HARD_NEGATIVES, ordering=ordering)


def distinct(
    right: Sequence[str], candidates: Iterable[str], limit: int | None = None, *, ordering: bool = True
) -> tuple[str, ...]:
    """The first `limit` candidates (None: all) that are not empty, and as answers equal neither a right one
    nor an earlier candidate. Without `ordering`, answers with the same words in another order are equal."""
    keys = (answer_key,) if ordering else (answer_key, meaning_key)
    seen = {(key, key(text)) for text in right for key in keys}
    kept: list[str] = []
    for candidate in candidates:
        if len(kept) == limit:
            break
        own = {(key, key(candidate)) for key in keys}
        if own.isdisjoint(seen) and answer_key(candidate):
            seen |= own
            kept.append(candidate)
    return tuple(kept)


def _neighbours(target: str, answers: TaskAnswers, rng: Random) -> Iterator[str]:
    """Targets of other rows with the same form and nearest in length, in random order, without those that
    have the same final answer."""
    pool = answers.targets[form_of(target)]
    place = bisect_left(pool, (len(target), target))
    nearest = pool[max(0, place - _WINDOW) : place + _WINDOW + 1]
    final = final_answer(target)
    for _, other in shuffled(nearest, rng):
        if final is None or final_answer(other) != final:
            yield other
