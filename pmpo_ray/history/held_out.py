"""Results on held-out examples by task: from the run's evaluation, else from the end of its search.

Invariant: a verdict compares the instruction that is the best now with the start, on the same examples, by a
p-value that is corrected for all such tests of the run: its tasks and, in an evaluation, models and numbers
of shots. Intervals are computed only for requested tasks; p-values are cheap and computed for all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pmpo_ray.config.evaluation import Baseline
from pmpo_ray.evaluation.conditions import BEST, START, names_a_start
from pmpo_ray.evaluation.labels import by_label
from pmpo_ray.evaluation.paired_tests import compare, paired_p_value
from pmpo_ray.evaluation.statistics import LEVEL, holm, mean_interval
from pmpo_ray.evaluation.summary import Row, Summary, grouped, row_of, strongest, summarise, values_of
from pmpo_ray.history.run_history import RunHistory
from pmpo_ray.outcomes import ByLabel, ConditionResult, Interval

Verdict = Literal["better", "worse", "not significant", "not evaluated"]
Values = Mapping[str, Sequence[float]]
"""The values of a task's examples by the name of the instruction."""
Setting = tuple[str, str, int]
"""A task, a model and a number of shots."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One task's accuracies before and after, and if they differ significantly. The p-value is corrected for
    `tests` tests. Accuracies by label are None if the labels are even, or there are none. `held_out` and
    `too_long` are those of the task's result."""

    before: Interval | None
    after: Interval | None
    p_value: float | None
    verdict: Verdict
    tests: int = 0
    labels_before: ByLabel | None = None
    labels_after: ByLabel | None = None
    held_out: int = 0
    too_long: int = 0

    @property
    def labels(self) -> tuple[tuple[str, Interval, Interval], ...]:
        """The labels, each with its accuracy before and after; empty if they are even, or there are none."""
        if self.labels_before is None or self.labels_after is None:
            return ()
        pairs = zip(self.labels_before.labels, self.labels_after.labels, strict=True)
        return tuple((one.label, one.accuracy, other.accuracy) for one, other in pairs)

    @property
    def extent(self) -> str:
        """The evaluated examples in words; empty if none were evaluated."""
        tested = self.after or self.before
        return "" if tested is None else extent_text(tested.n, self.held_out, self.too_long)


def extent_text(evaluated: int, held_out: int, too_long: int) -> str:
    """The evaluated ones of a task's held-out examples in words."""
    of_all = f" of {held_out:,}" if held_out > evaluated else ""
    left_out = f", {too_long:,} too long for the context" if too_long else ""
    return f"{evaluated:,}{of_all} held-out examples{left_out}"


@dataclass(frozen=True, slots=True)
class Contrast:
    """The best instruction against the one called `other`: the mean of the differences, and its p-value
    corrected for `tests` tests."""

    other: str
    difference: Interval
    p_value: float
    tests: int

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


def free_names(names: Iterable[str]) -> frozenset[str]:
    """Those names that are of instructions for which nothing was optimised."""
    return frozenset(name for name in names if names_a_start(name) or name in get_args(Baseline))


def held_out_results(history: RunHistory, only: str | None = None) -> Mapping[str, HeldOut]:
    """The held-out results by task, of tasks that have some, or those of the task `only`. With several models
    or numbers of shots, verdicts are about the first. An evaluation of an earlier best has no verdict."""
    found = _at_the_end(history, only)
    values, outdated = _values(history.evaluation, (START, BEST)), _outdated(history)
    p_values = _corrected(values, dict.fromkeys(values, START))
    labels = {one.condition.task: one.labels for one in history.evaluation}
    for setting in _main(values):
        task, named = setting[0], values[setting]
        if only not in (None, task):
            continue
        if task in outdated:
            found.setdefault(task, NOTHING)
            continue
        before, after = named.get(START), named.get(BEST, named.get(START))
        p_value, difference = p_values.get(setting), 0.0
        if p_value is not None:
            difference = math.fsum(_differences(named, START))
        found[task] = HeldOut(
            before=None if before is None else mean_interval(before),
            after=None if after is None else mean_interval(after),
            p_value=p_value,
            verdict="not evaluated" if p_value is None else _verdict(p_value, difference),
            tests=len(p_values),
            labels_before=None if before is None else by_label(labels[task], before),
            labels_after=None if after is None else by_label(labels[task], after),
            held_out=found[task].held_out if task in found else 0,
        )
    return found


def evaluated_tasks(history: RunHistory) -> Mapping[str, EvaluatedTask]:
    """The results of the run's evaluation, by task."""
    rows: dict[str, list[Row]] = {}
    for group in grouped(history.evaluation):
        if group[0].outcomes:
            rows.setdefault(group[0].condition.task, []).append(row_of(group))
    values, outdated = _values(history.evaluation), _outdated(history)
    free = {
        place: name
        for place, named in values.items()
        if (name := strongest(named, free_names(named))) is not None
    }
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
    return summarise(own, free_names(one.condition.name for one in own)) if own else None


def _values(
    evaluation: Sequence[ConditionResult], names: Collection[str] | None = None
) -> dict[Setting, dict[str, Sequence[float]]]:
    """The values by setting and name (of the instructions `names`; None: of all)."""
    found: dict[Setting, dict[str, Sequence[float]]] = {}
    measured = (one for one in evaluation if one.outcomes)
    for group in grouped(one for one in measured if names is None or one.condition.name in names):
        condition = group[0].condition
        place = condition.task, condition.model, condition.shots
        found.setdefault(place, {})[condition.name] = values_of(group)
    return found


def _main(values: Mapping[Setting, Values]) -> list[Setting]:
    """The settings with the first model and number of shots."""
    settings = list(values)
    return [setting for setting in settings if setting[1:] == settings[0][1:]]


def _corrected(values: Mapping[Setting, Values], others: Mapping[Setting, str]) -> dict[Setting, float]:
    """The p-value of each setting's best against its instruction of `others`, corrected for their number."""
    p_values = {
        setting: paired_p_value(values[setting][other], values[setting][BEST])
        for setting, other in others.items()
        if BEST in values[setting] and other in values[setting]
    }
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))


def _contrasts(values: Mapping[Setting, Values], others: Mapping[Setting, str]) -> dict[str, Contrast]:
    """The contrasts by task, under the main settings."""
    p_values = _corrected(values, others)
    return {
        setting[0]: Contrast(
            others[setting],
            compare(values[setting][others[setting]], values[setting][BEST]).difference,
            p_values[setting],
            len(p_values),
        )
        for setting in _main(values)
        if setting in p_values
    }


def _differences(values: Values, other: str) -> list[float]:
    return [after - before for before, after in zip(values[other], values[BEST], strict=True)]


def _outdated(history: RunHistory) -> set[str]:
    """The tasks whose evaluated best is not the best any more."""
    tasks = {task.task: task for task in history.tasks}
    return {
        one.condition.task
        for one in history.evaluation
        if one.condition.name == BEST
        and not (one.condition.task in tasks and tasks[one.condition.task].is_best(one.condition))
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
            labels = result.labels_before, result.labels_after
            sizes = result.held_out, result.too_long
            found[result.task] = HeldOut(before, after, p_value, verdict, len(tested), *labels, *sizes)
    return found


def _verdict(p_value: float, difference: float) -> Verdict:
    if p_value >= LEVEL or difference == 0:
        return "not significant"
    return "better" if difference > 0 else "worse"
