"""What an evaluation comes to: accuracies with intervals, and the best instruction against its start and
against the strongest free baseline.

Invariants: instructions are compared on the same examples only; a value is an example's mean over
repetitions; p-values of the tasks of one comparison are corrected for their number (Holm).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from pmpo_ray.evaluation.conditions import BEST, START
from pmpo_ray.evaluation.statistics import (
    LEVEL,
    Comparison,
    bootstrap_interval,
    compare,
    pooled,
    rank_correlation,
    stratified_interval,
)
from pmpo_ray.evaluation.statistics import holm as corrected
from pmpo_ray.types import ConditionResult, Interval, Method, Outcome

Against = Literal["start", "free"]


@dataclass(frozen=True, slots=True)
class Row:
    """One instruction on one task, with one model and number of shots, over all repetitions. `unread` is the
    share of replies in which no answer was found; `loss` and `score` (of the replies' steps) are means where
    they were measured. Of judged answers `accuracy` is the win rate, ties and undecided pairs half, and
    `unread` the share of undecided ones."""

    task: str
    model: str
    shots: int
    method: Method
    name: str
    instruction: str
    accuracy: Interval
    unread: float
    loss: float | None
    score: Interval | None
    tokens: int
    train_loss: float | None


@dataclass(frozen=True, slots=True)
class Gain:
    """The best instruction of a task against its start (`against` "start") or against the strongest of what
    was free, the start among it ("free"; which one that is was seen on the test part, to its advantage).
    `p_adjusted` is corrected for the number of tasks; `loss` compares the losses where they were measured."""

    task: str
    model: str
    shots: int
    against: Against
    other: str
    accuracy: Comparison
    p_adjusted: float
    loss: Comparison | None

    @property
    def significant(self) -> bool:
        return self.p_adjusted < LEVEL


@dataclass(frozen=True, slots=True)
class Overall:
    """All tasks together, each weighing the same: mean accuracies by name (where every task has it), and the
    mean gain over start and over each task's strongest free baseline."""

    model: str
    shots: int
    accuracies: dict[str, Interval]
    gains: dict[Against, Comparison]


@dataclass(frozen=True, slots=True)
class Prediction:
    """How well the loss on the training part tells the accuracy on the test part, over all candidates of a
    task that were evaluated: Spearman's rank correlation (-1 were perfect) and its p-value."""

    task: str
    model: str
    shots: int
    candidates: int
    correlation: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What an evaluation comes to, in the order of its conditions."""

    rows: tuple[Row, ...]
    gains: tuple[Gain, ...]
    overall: tuple[Overall, ...]
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True, slots=True)
class _Cell:
    """All repetitions of one instruction under equal conditions."""

    row: Row
    values: tuple[float, ...]
    losses: tuple[float, ...] | None


def summarise(results: Sequence[ConditionResult], free: Collection[str]) -> Summary:
    """The summary of conditions with outcomes; `free` names what was there before any optimisation."""
    cells = [_cell(group) for group in grouped(results) if group[0].outcomes]
    places = dict.fromkeys((cell.row.model, cell.row.shots) for cell in cells)
    gains: list[Gain] = []
    overall: list[Overall] = []
    predictions: list[Prediction] = []
    for model, shots in places:
        here = [cell for cell in cells if (cell.row.model, cell.row.shots) == (model, shots)]
        tasks = {task: _of(here, task) for task in dict.fromkeys(cell.row.task for cell in here)}
        gains += _gains(tasks, "start", lambda _: START)
        gains += _gains(tasks, "free", lambda cells: _strongest(cells, free))
        overall.append(_overall(model, shots, tasks, free))
        predictions += [found for own in tasks.values() if (found := _prediction(own)) is not None]
    return Summary(tuple(cell.row for cell in cells), tuple(gains), tuple(overall), tuple(predictions))


def grouped(results: Iterable[ConditionResult]) -> list[list[ConditionResult]]:
    """The results of equal conditions, those of all repetitions together."""
    groups: dict[object, list[ConditionResult]] = {}
    for one in results:
        groups.setdefault(replace(one.condition, repetition=0), []).append(one)
    return list(groups.values())


def _cell(group: Sequence[ConditionResult]) -> _Cell:
    return _Cell(row_of(group), values_of(group), _losses(group))


def values_of(group: Sequence[ConditionResult]) -> tuple[float, ...]:
    """Each example's mean value over the repetitions of one condition."""
    judged = group[0].condition.method == "judged"
    repetitions = [[outcome_value(outcome, judged=judged) for outcome in one.outcomes] for one in group]
    return tuple(map(fmean, zip(*repetitions, strict=True))) if len(group) > 1 else tuple(repetitions[0])


def row_of(group: Sequence[ConditionResult]) -> Row:
    """The figures of one condition over its repetitions, with their intervals."""
    condition = group[0].condition
    outcomes = [outcome for one in group for outcome in one.outcomes]
    losses = _losses(group)
    scores = [
        outcome.score for outcome in outcomes if outcome.score is not None and condition.method != "judged"
    ]
    return Row(
        task=condition.task,
        model=condition.model,
        shots=condition.shots,
        method=condition.method,
        name=condition.name,
        instruction=condition.instruction,
        accuracy=bootstrap_interval(values_of(group)),
        unread=fmean(outcome.answer is None for outcome in outcomes),
        loss=None if losses is None else fmean(losses),
        score=bootstrap_interval(scores) if scores else None,
        tokens=sum(outcome.tokens for outcome in outcomes),
        train_loss=condition.train_loss,
    )


def outcome_value(outcome: Outcome, *, judged: bool) -> float:
    """What an outcome counts: 1 if right, or how far it is preferred."""
    return float(outcome.right) if not judged or outcome.score is None else outcome.score


def _losses(group: Sequence[ConditionResult]) -> tuple[float, ...] | None:
    """Each example's mean loss over the repetitions; None if any has no finite one."""
    repetitions = [[outcome.loss for outcome in one.outcomes if outcome.loss is not None] for one in group]
    if any(len(losses) < len(one.outcomes) for losses, one in zip(repetitions, group, strict=True)):
        return None
    means = tuple(map(fmean, zip(*repetitions, strict=True)))
    return means if all(map(math.isfinite, means)) else None


def _of(cells: Sequence[_Cell], task: str) -> dict[str, _Cell]:
    return {cell.row.name: cell for cell in cells if cell.row.task == task}


def strongest(values: Mapping[str, Sequence[float]], free: Collection[str]) -> str | None:
    """The name of the most accurate free instruction, the first of several; None if there is none."""
    names = [name for name in values if name in free]
    return max(names, key=lambda name: math.fsum(values[name]) / len(values[name]), default=None)


def _strongest(cells: dict[str, _Cell], free: Collection[str]) -> str | None:
    return strongest({name: cell.values for name, cell in cells.items()}, free)


def _gains(
    tasks: dict[str, dict[str, _Cell]], against: Against, choose: Callable[[dict[str, _Cell]], str | None]
) -> list[Gain]:
    found: list[Gain] = []
    for task, cells in tasks.items():
        other = choose(cells)
        if BEST not in cells or other not in cells:
            continue
        after, before = cells[BEST], cells[other]
        losses = None
        if after.losses is not None and before.losses is not None:
            losses = compare(before.losses, after.losses)
        accuracy = compare(before.values, after.values)
        row = after.row
        found.append(Gain(task, row.model, row.shots, against, other, accuracy, accuracy.p_value, losses))
    adjusted = corrected([gain.accuracy.p_value for gain in found])
    return [replace(gain, p_adjusted=p_value) for gain, p_value in zip(found, adjusted, strict=True)]


def _overall(model: str, shots: int, tasks: dict[str, dict[str, _Cell]], free: Collection[str]) -> Overall:
    shared = [name for name in next(iter(tasks.values())) if all(name in cells for cells in tasks.values())]
    accuracies = {
        name: stratified_interval([cells[name].values for cells in tasks.values()]) for name in shared
    }
    gains: dict[Against, Comparison] = {}
    if BEST in shared:
        if START in shared:
            gains["start"] = pooled([(cells[START].values, cells[BEST].values) for cells in tasks.values()])
        strongest = [_strongest(cells, free) for cells in tasks.values()]
        if all(name is not None for name in strongest):
            gains["free"] = pooled(
                [
                    (cells[name or ""].values, cells[BEST].values)
                    for name, cells in zip(strongest, tasks.values(), strict=True)
                ]
            )
    return Overall(model, shots, accuracies, gains)


def _prediction(cells: dict[str, _Cell]) -> Prediction | None:
    """None with fewer than 3 candidates that have a training loss."""
    rows = [
        cell.row
        for cell in cells.values()
        if cell.row.train_loss is not None and math.isfinite(cell.row.train_loss)
    ]
    if len(rows) < 3:
        return None
    correlation, p_value = rank_correlation(
        [row.train_loss or 0.0 for row in rows], [row.accuracy.value for row in rows]
    )
    first = rows[0]
    return Prediction(first.task, first.model, first.shots, len(rows), correlation, p_value)
