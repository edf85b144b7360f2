"""Results on held-out examples by task: from the run's evaluation, else from the end of its search.

Invariant: a verdict compares the instruction that is the best now with the start, on the same examples, by a
p-value that is corrected for the number of tasks. Intervals take a bootstrap each and are computed only for
requested tasks; p-values are cheap and computed for all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pmpo_ray.config.evaluation import Baseline
from pmpo_ray.evaluation.conditions import BEST, START
from pmpo_ray.evaluation.statistics import LEVEL, bootstrap_interval, holm, paired_p_value
from pmpo_ray.evaluation.summary import Row, Summary, grouped, row_of, strongest, summarise, values_of
from pmpo_ray.history.run_history import RunHistory
from pmpo_ray.types import ConditionResult, Interval

FREE = frozenset({START, *get_args(Baseline)})
"""Names of the instructions that nothing was optimised for."""

Verdict = Literal["better", "worse", "not significant", "not evaluated"]
Values = Mapping[str, Sequence[float]]
"""The values of a task's examples by the name of the instruction."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One task's accuracies before and after, and if they differ significantly."""

    before: Interval | None
    after: Interval | None
    p_value: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Contrast:
    """The best instruction against the one called `other`: the mean of the differences, and its p-value
    corrected for the number of tasks."""

    other: str
    difference: Interval
    p_value: float

    @property
    def significant(self) -> bool:
        """True if the difference is more than chance explains."""
        return self.p_value < LEVEL


@dataclass(frozen=True, slots=True)
class EvaluatedTask:
    """One task of an evaluation: a row for every instruction and condition, and, for the main condition, the
    best against the start and against the strongest free instruction. There are no contrasts if the run has
    found another best since."""

    rows: tuple[Row, ...]
    start: Contrast | None = None
    free: Contrast | None = None


NOTHING = HeldOut(None, None, None, "not evaluated")


def held_out_results(history: RunHistory, only: str | None = None) -> Mapping[str, HeldOut]:
    """The held-out results by task, of tasks that have some, or those of the task `only`. With several models
    or numbers of shots, verdicts are about the first. An evaluation of an earlier best has no verdict."""
    found = _at_the_end(history, only)
    values, outdated = _main_values(history.evaluation, (START, BEST)), _outdated(history)
    p_values = _corrected(values, dict.fromkeys(values, START))
    for task, named in values.items():
        if only not in (None, task):
            continue
        if task in outdated:
            found.setdefault(task, NOTHING)
            continue
        before, after = named.get(START), named.get(BEST, named.get(START))
        p_value, difference = p_values.get(task), 0.0
        if p_value is not None:
            difference = math.fsum(_differences(named, START))
        found[task] = HeldOut(
            before=None if before is None else bootstrap_interval(before),
            after=None if after is None else bootstrap_interval(after),
            p_value=p_value,
            verdict="not evaluated" if p_value is None else _verdict(p_value, difference),
        )
    return found


def evaluated_tasks(history: RunHistory) -> Mapping[str, EvaluatedTask]:
    """The results of the run's evaluation, by task."""
    rows: dict[str, list[Row]] = {}
    for group in grouped(history.evaluation):
        if group[0].outcomes:
            rows.setdefault(group[0].condition.task, []).append(row_of(group))
    values, outdated = _main_values(history.evaluation), _outdated(history)
    free = {task: name for task, named in values.items() if (name := strongest(named, FREE)) is not None}
    starts = _contrasts(values, dict.fromkeys(values, START))
    frees = _contrasts(values, free)
    return {
        task: EvaluatedTask(tuple(own))
        if task in outdated
        else EvaluatedTask(tuple(own), starts.get(task), frees.get(task))
        for task, own in rows.items()
    }


def task_summary(history: RunHistory, task: str) -> Summary | None:
    """The evaluation of one task alone, its p-values not corrected for the run's other tasks; None without an
    evaluation of it."""
    own = [one for one in history.evaluation if one.condition.task == task]
    return summarise(own, FREE) if own else None


def _main_values(
    evaluation: Sequence[ConditionResult], names: Collection[str] | None = None
) -> dict[str, dict[str, Sequence[float]]]:
    """The values by task and name (of the instructions `names`; None: of all) under the main condition: the
    first model and number of shots of the evaluation."""
    measured = [one for one in evaluation if one.outcomes]
    found: dict[str, dict[str, Sequence[float]]] = {}
    for group in grouped(one for one in measured if names is None or one.condition.name in names):
        condition, main = group[0].condition, measured[0].condition
        if (condition.model, condition.shots) == (main.model, main.shots):
            found.setdefault(condition.task, {})[condition.name] = values_of(group)
    return found


def _corrected(values: Mapping[str, Values], others: Mapping[str, str]) -> dict[str, float]:
    """The p-value of each task's best against its instruction of `others`, corrected for their number."""
    p_values = {
        task: paired_p_value(values[task][other], values[task][BEST])
        for task, other in others.items()
        if BEST in values[task] and other in values[task]
    }
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))


def _contrasts(values: Mapping[str, Values], others: Mapping[str, str]) -> dict[str, Contrast]:
    return {
        task: Contrast(others[task], bootstrap_interval(_differences(values[task], others[task])), p_value)
        for task, p_value in _corrected(values, others).items()
    }


def _differences(values: Values, other: str) -> list[float]:
    return [after - before for before, after in zip(values[other], values[BEST], strict=True)]


def _outdated(history: RunHistory) -> set[str]:
    """The tasks whose evaluated best is not the best any more."""
    best = {task.task: task.best.candidate.text for task in history.tasks}
    return {
        one.condition.task
        for one in history.evaluation
        if one.condition.name == BEST and one.condition.instruction != best.get(one.condition.task)
    }


def _at_the_end(history: RunHistory, only: str | None) -> dict[str, HeldOut]:
    """The accuracies that each finished search measured at its end."""
    tested = {result.task: result.p_value for result in history.results if result.p_value is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    found = {}
    for result in history.results:
        before, after, p_value = result.accuracy_before, result.accuracy_after, adjusted.get(result.task)
        if only not in (None, result.task):
            continue
        if before is None or after is None or p_value is None:
            found[result.task] = NOTHING
        else:
            verdict = _verdict(p_value, after.value - before.value)
            found[result.task] = HeldOut(before, after, p_value, verdict)
    return found


def _verdict(p_value: float, difference: float) -> Verdict:
    if p_value >= LEVEL or difference == 0:
        return "not significant"
    return "better" if difference > 0 else "worse"
