"""The negatives y- of every row.

Invariants: negatives are not empty, and differ from the target and from each other as answers (white space,
case and the notation of a number do not count). They depend on the seed, the task's name, the row itself and
the set of the other rows, not on the order of the rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

from pmpo_ray.errors import DataError
from pmpo_ray.tasks.corruptions import Form, answer_key, corrupted, final_answer, form_of, shuffled
from pmpo_ray.tasks.options import letter_of, parse_options, wrong_options
from pmpo_ray.tasks.rows import Row
from pmpo_ray.types import Kind

HARD_NEGATIVES = 4
_WINDOW = 16
"""The number of shorter and of longer targets, nearest in length, from which hard negatives are drawn."""


@dataclass(frozen=True, slots=True)
class TaskAnswers:
    """The answers of a task, from which negatives are drawn: the closed label set, the letters that occur as
    targets, and the distinct targets of each form, by length."""

    labels: tuple[str, ...]
    letters: tuple[str, ...]
    targets: Mapping[Form, tuple[tuple[int, str], ...]]


def task_answers(rows: Iterable[Row], labels: tuple[str, ...]) -> TaskAnswers:
    targets = {row.target for row in rows}
    by_form: dict[Form, list[tuple[int, str]]] = {"number": [], "brackets": [], "text": []}
    for target in targets:
        by_form[form_of(target)].append((len(target), target))
    return TaskAnswers(
        labels=labels,
        letters=tuple(sorted({letter for target in targets if (letter := letter_of(target)) is not None})),
        targets={form: tuple(sorted(members)) for form, members in by_form.items()},
    )


def negatives_of(row: Row, kind: Kind, answers: TaskAnswers, rng: Random) -> tuple[str, ...]:
    """The negatives of one row: those in the data for pairs, the wrong options, the other labels, or
    `HARD_NEGATIVES` hard ones for free text (fewer if the task has no more).

    Raises DataError for a pair without a usable negative, and for a target outside the label set.
    """
    if kind == "pairs":
        usable = distinct(row.target, row.negatives)
        if not usable:
            raise DataError(
                f"{row.where}: no negative that differs from the target; add one or remove the row"
            )
        return usable
    if kind == "labels":
        if row.target not in answers.labels:
            known = ", ".join(answers.labels)
            raise DataError(
                f"{row.where}: target {row.target[:60]!r} is none of the labels {known}; fix the target or "
                "the labels"
            )
        return distinct(row.target, answers.labels)
    if kind == "options":
        wrong = distinct(row.target, wrong_options(row.input, row.target, answers.letters))
        if wrong:
            return wrong
    return hard_negatives(row, answers, rng)


def hard_negatives(row: Row, answers: TaskAnswers, rng: Random) -> tuple[str, ...]:
    """One half corruptions of the row's target, the other half targets of other rows that are about as long.
    If one half has too few, the other half has more."""
    options = parse_options(row.input)
    changed = corrupted(row.target, options.letters if options else (), rng)
    corruptions = distinct(row.target, changed, HARD_NEGATIVES)
    others = distinct(row.target, _neighbours(row.target, answers, rng), HARD_NEGATIVES)
    half = HARD_NEGATIVES // 2
    ordered = (*corruptions[:half], *others[:half], *corruptions[half:], *others[half:])
    return distinct(row.target, ordered, HARD_NEGATIVES)


def distinct(target: str, candidates: Iterable[str], limit: int | None = None) -> tuple[str, ...]:
    """The first `limit` candidates (None: all) that are not empty, and as answers equal neither the target
    nor an earlier candidate."""
    seen = {answer_key(target)}
    kept: list[str] = []
    for candidate in candidates:
        if len(kept) == limit:
            break
        key = answer_key(candidate)
        if key and key not in seen:
            seen.add(key)
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
