"""The summary of an evaluation: accuracies with intervals, and comparisons of the best instruction with the
start and with the strongest free instruction.

Invariants: instructions are compared on the same examples; a value is an example's mean over repetitions;
p-values are corrected (Holm) for all tests that answer one question: is the best better than the start, or
than the strongest free instruction, on any task, with any model and number of shots?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal, get_args

from pmpo_ray.evaluation.conditions import BEST, START
from pmpo_ray.evaluation.labels import by_label
from pmpo_ray.evaluation.paired_tests import Comparison, compare, pooled
from pmpo_ray.evaluation.statistics import (
    LEVEL,
    bootstrap_interval,
    holm,
    mean_interval,
    rank_correlation,
    stratified_interval,
)
from pmpo_ray.outcomes import ByLabel, ConditionResult, Interval, Method, Outcome

Against = Literal["start", "free"]


@dataclass(frozen=True, slots=True)
class Row:
    """The results of one instruction on one task, with one model and number of shots, over all repetitions.

    `unread` is the share of replies without a readable answer. `loss` (in nats) and `score` (of the steps of
    replies) are means, None if they were not measured. With a judge, `accuracy` is the win rate, in which
    ties and undecided pairs count half, and `unread` is the share of undecided pairs. `by_label` are the
    accuracies by label, None if the labels are even, or there are none."""

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
    by_label: ByLabel | None = None


@dataclass(frozen=True, slots=True)
class Gain:
    """The best instruction of a task compared with `other`: the start (`against` "start"), or the strongest
    free instruction, which may be the start ("free"; it is selected on the test part, which favours it).
    `p_adjusted` is corrected for the `tests` against the same: one for every task, model and number of shots.
    `loss` compares the losses, None if they were not measured."""

    task: str
    model: str
    shots: int
    against: Against
    other: str
    accuracy: Comparison
    p_adjusted: float
    tests: int
    loss: Comparison | None

    @property
    def significant(self) -> bool:
        """True if the accuracies differ significantly."""
        return self.p_adjusted < LEVEL


@dataclass(frozen=True, slots=True)
class Overall:
    """Means over all tasks, which weigh the same: the accuracies of the instructions that every task has, by
    name, and the gains over the start and over each task's strongest free instruction. `p_adjusted` are the
    p-values of the gains, corrected for the number of models and shots."""

    model: str
    shots: int
    accuracies: dict[str, Interval]
    gains: dict[Against, Comparison]
    p_adjusted: dict[Against, float]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The loss on the training part as a predictor of the accuracy on the test part: Spearman's rank
    correlation over the evaluated candidates of a task (-1 is perfect), and its p-value, as it is and
    corrected for the number of predictions."""

    task: str
    model: str
    shots: int
    candidates: int
    correlation: float
    p_value: float
    p_adjusted: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of an evaluation, in the order of its conditions."""

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
    """Summarise the conditions that have outcomes. `free` names the instructions that needed no
    optimisation."""
    cells = [_cell(group) for group in grouped(results) if group[0].outcomes]
    settings = dict.fromkeys((cell.row.model, cell.row.shots) for cell in cells)
    starts: list[Gain] = []
    frees: list[Gain] = []
    overall: list[Overall] = []
    predictions: list[Prediction] = []
    for model, shots in settings:
        selected = [cell for cell in cells if (cell.row.model, cell.row.shots) == (model, shots)]
        tasks = {task: _of(selected, task) for task in dict.fromkeys(cell.row.task for cell in selected)}
        starts += _gains(tasks, "start", lambda _: START)
        frees += _gains(tasks, "free", lambda cells: _strongest(cells, free))
        overall.append(_overall(model, shots, tasks, free))
        predictions += filter(None, map(_prediction, tasks.values()))
    return Summary(
        tuple(cell.row for cell in cells),
        (*_corrected(starts), *_corrected(frees)),
        _corrected_overall(overall),
        _corrected_predictions(predictions),
    )


def grouped(results: Iterable[ConditionResult]) -> list[list[ConditionResult]]:
    """The results by condition, the repetitions of a condition in one group."""
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
    """The row of one condition, over all its repetitions."""
    condition, values = group[0].condition, values_of(group)
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
        accuracy=mean_interval(values),
        unread=fmean(outcome.answer is None for outcome in outcomes),
        loss=None if losses is None else fmean(losses),
        score=bootstrap_interval(scores) if scores else None,
        tokens=sum(outcome.tokens for outcome in outcomes),
        train_loss=condition.train_loss,
        by_label=by_label(group[0].labels, values),
    )


def outcome_value(outcome: Outcome, *, judged: bool) -> float:
    """The value of an outcome: 1 if it is right, otherwise 0; with a judge, its preference from 0 to 1."""
    return float(outcome.right) if not judged or outcome.score is None else outcome.score


def _losses(group: Sequence[ConditionResult]) -> tuple[float, ...] | None:
    """Each example's mean loss over the repetitions; None if a loss is missing or not finite."""
    repetitions = [[outcome.loss for outcome in one.outcomes if outcome.loss is not None] for one in group]
    if any(len(losses) < len(one.outcomes) for losses, one in zip(repetitions, group, strict=True)):
        return None
    means = tuple(map(fmean, zip(*repetitions, strict=True)))
    return means if all(map(math.isfinite, means)) else None


def _of(cells: Sequence[_Cell], task: str) -> dict[str, _Cell]:
    return {cell.row.name: cell for cell in cells if cell.row.task == task}


def strongest(values: Mapping[str, Sequence[float]], free: Collection[str]) -> str | None:
    """The name of the most accurate free instruction (the first on a tie); None if there is none."""
    names = [name for name in values if name in free]
    return max(names, key=lambda name: math.fsum(values[name]) / len(values[name]), default=None)


def _strongest(cells: dict[str, _Cell], free: Collection[str]) -> str | None:
    return strongest({name: cell.values for name, cell in cells.items()}, free)


def _gains(
    tasks: dict[str, dict[str, _Cell]], against: Against, choose: Callable[[dict[str, _Cell]], str | None]
) -> list[Gain]:
    gains: list[Gain] = []
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
        gains.append(Gain(task, row.model, row.shots, against, other, accuracy, accuracy.p_value, 1, losses))
    return gains


def _corrected(gains: Sequence[Gain]) -> list[Gain]:
    """The gains against the same, with corrected p-values."""
    adjusted = holm([gain.accuracy.p_value for gain in gains])
    return [
        replace(gain, p_adjusted=p_value, tests=len(gains))
        for gain, p_value in zip(gains, adjusted, strict=True)
    ]


def _corrected_overall(overall: Sequence[Overall]) -> tuple[Overall, ...]:
    corrected: list[dict[Against, float]] = [{} for _ in overall]
    for against in get_args(Against):
        places = [number for number, one in enumerate(overall) if against in one.gains]
        adjusted = holm([overall[number].gains[against].p_value for number in places])
        for number, p_value in zip(places, adjusted, strict=True):
            corrected[number][against] = p_value
    return tuple(replace(one, p_adjusted=p) for one, p in zip(overall, corrected, strict=True))


def _corrected_predictions(predictions: Sequence[Prediction]) -> tuple[Prediction, ...]:
    adjusted = holm([prediction.p_value for prediction in predictions])
    return tuple(replace(one, p_adjusted=p) for one, p in zip(predictions, adjusted, strict=True))


def _overall(model: str, shots: int, tasks: dict[str, dict[str, _Cell]], free: Collection[str]) -> Overall:
    shared = [name for name in next(iter(tasks.values())) if all(name in cells for cells in tasks.values())]
    accuracies = {
        name: stratified_interval([cells[name].values for cells in tasks.values()]) for name in shared
    }
    gains: dict[Against, Comparison] = {}
    if BEST in shared:
        after = [cells[BEST].values for cells in tasks.values()]
        if START in shared:
            before = [cells[START].values for cells in tasks.values()]
            gains["start"] = pooled(list(zip(before, after, strict=True)))
        before = [
            cells[name].values for cells in tasks.values() if (name := _strongest(cells, free)) is not None
        ]
        if len(before) == len(after):
            gains["free"] = pooled(list(zip(before, after, strict=True)))
    return Overall(model, shots, accuracies, gains, {})


def _prediction(cells: dict[str, _Cell]) -> Prediction | None:
    """The prediction for a task; None with fewer than 3 candidates that have a training loss. One with two
    names, such as a start that is the best, counts once."""
    found = {
        (cell.row.instruction, cell.row.train_loss): cell.row
        for cell in cells.values()
        if cell.row.train_loss is not None and math.isfinite(cell.row.train_loss)
    }
    rows = list(found.values())
    if len(rows) < 3:
        return None
    correlation, p_value = rank_correlation(
        [row.train_loss or 0.0 for row in rows], [row.accuracy.value for row in rows]
    )
    first = rows[0]
    return Prediction(first.task, first.model, first.shots, len(rows), correlation, p_value, p_value)
