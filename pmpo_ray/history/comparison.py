"""The comparison of two runs, as values.

Invariants: losses are compared only if they measure the same thing; held-out accuracies are tested only on
examples that both best instructions answered, paired, and p-values are corrected for the number of tasks
(Holm); configuration values that may be secrets are never included.

The first run is "A", the second "B"; a difference is B minus A.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from pydantic import BaseModel

from pmpo_ray.config.messages import secretive
from pmpo_ray.config.resume import differences
from pmpo_ray.errors import RunFolderError
from pmpo_ray.evaluation.paired_tests import Comparison, compare
from pmpo_ray.evaluation.statistics import LEVEL, holm, mean_interval
from pmpo_ray.evaluation.summary import outcome_value
from pmpo_ray.history.run_history import RunHistory, TaskHistory
from pmpo_ray.history.task_facts import Cost, TaskState, cost_of, state_of
from pmpo_ray.outcomes import ConditionResult, Interval
from pmpo_ray.search.objectives import PER_TOKEN, resolve_auto

HIDDEN = "(not shown)"
ABSENT = "(not there)"
_PLACE = ("run_dir",)
"""Keys without an influence on the result."""
_FREE = "options"
"""Arguments of other programs, under names of their choice."""

Values = dict[str, float]
"""An instruction's values on held-out examples by the examples' ids, which identify their contents."""


@dataclass(frozen=True, slots=True)
class Side:
    """A task in one of the runs. `accuracy` is that of its best instruction, None if not measured."""

    state: TaskState
    rounds: int
    loss: float
    accuracy: Interval | None
    cost: Cost
    best: str


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """A task of both runs. `obstacles` are the differences that make their losses incomparable, if any.
    `paired` compares the accuracies on the same examples, `p_adjusted` is corrected for the number of tasks;
    both are None if there are no such examples, and then the accuracies of A and B are independent."""

    task: str
    a: Side
    b: Side
    obstacles: tuple[str, ...]
    paired: Comparison | None
    p_adjusted: float | None = None

    @property
    def significant(self) -> bool:
        """True if the accuracies differ significantly."""
        return self.p_adjusted is not None and self.p_adjusted < LEVEL


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """A key of the configuration with both values as JSON, or HIDDEN, or ABSENT."""

    key: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Two runs. `only_a` and `only_b` are the tasks with a finished round that the other lacks."""

    a: str
    b: str
    tasks: tuple[TaskComparison, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    differences: tuple[KeyDifference, ...]


def compare_runs(
    a: RunHistory, b: RunHistory, *, task: str | None, redact: Callable[[str], str]
) -> RunComparison:
    """Compare the tasks of both runs, or only `task`. `redact` removes secrets from a text.

    Raises RunFolderError if the runs have no such task in common.
    """
    if task is not None:
        pairs = [(a.task(task), b.task(task))]
    else:
        others = {other.task: other for other in b.tasks}
        pairs = [(one, others[one.task]) for one in a.tasks if one.task in others]
    if not pairs:
        raise RunFolderError(
            f"{a.location} and {b.location} have no task in common that has a finished round in both; "
            "compare runs of the same tasks"
        )
    common = {one.task for one, _ in pairs}
    return RunComparison(
        a=a.location,
        b=b.location,
        tasks=_corrected([_compared(a, b, one, other) for one, other in pairs]),
        only_a=tuple(one.task for one in a.tasks if one.task not in common and task is None),
        only_b=tuple(one.task for one in b.tasks if one.task not in common and task is None),
        differences=tuple(
            KeyDifference(key, _value(a, key, redact), _value(b, key, redact))
            for key in differences(a.config, b.config, ignored=_PLACE)
        ),
    )


def _compared(a: RunHistory, b: RunHistory, one: TaskHistory, other: TaskHistory) -> TaskComparison:
    first, second = _side(a, one), _side(b, other)
    answers = _answers(_best_values(a.evaluation, one), _best_values(b.evaluation, other))
    paired = None
    if answers is not None:
        paired = compare(*answers)
        first = replace(first, accuracy=mean_interval(answers[0]))
        second = replace(second, accuracy=mean_interval(answers[1]))
    return TaskComparison(one.task, first, second, tuple(_obstacles(a, b, one, other)), paired)


def _corrected(tasks: Sequence[TaskComparison]) -> tuple[TaskComparison, ...]:
    adjusted = iter(holm([task.paired.p_value for task in tasks if task.paired is not None]))
    return tuple(task if task.paired is None else replace(task, p_adjusted=next(adjusted)) for task in tasks)


def _side(history: RunHistory, task: TaskHistory) -> Side:
    return Side(
        state=state_of(history, task),
        rounds=len(task.records) - 1,
        loss=task.best.loss,
        accuracy=task.result.accuracy_after if task.result is not None else None,
        cost=cost_of(task),
        best=task.best.candidate.text,
    )


def _answers(
    ours: Mapping[object, Values], theirs: Mapping[object, Values]
) -> tuple[list[float], list[float]] | None:
    """The values of both best instructions on the held-out examples that both answered, under the first
    condition (model, shots, method) that they share; None if there are none."""
    for place, values in ours.items():
        others = theirs.get(place, {})
        if shared := [example for example in values if example in others]:
            return [values[example] for example in shared], [others[example] for example in shared]
    return None


def _best_values(results: Sequence[ConditionResult], task: TaskHistory) -> dict[object, Values]:
    """The best instruction's values by condition, each an example's mean over repetitions.

    Answers that a judge compared with references do not count: the references of the runs differ.
    """
    best: dict[object, dict[str, list[float]]] = {}
    for one in results:
        condition = one.condition
        if condition.task != task.task or not task.is_best(condition) or condition.method == "judged":
            continue
        values = best.setdefault((condition.model, condition.shots, condition.method), {})
        for outcome in one.outcomes:
            values.setdefault(outcome.example, []).append(outcome_value(outcome, judged=False))
    return {
        place: {example: fmean(every) for example, every in values.items()} for place, values in best.items()
    }


def _obstacles(a: RunHistory, b: RunHistory, one: TaskHistory, other: TaskHistory) -> Iterator[str]:
    """The differences between two runs of a task, besides the instruction, that its losses depend on."""
    if not _same_model(a, b):
        yield "model"
    if a.manifest is None or b.manifest is None or a.manifest.data[one.task] != b.manifest.data[one.task]:
        yield "data"
    if not _same_split(a, b, one, other):
        yield "split"
    if _objective(a, one) != _objective(b, other):
        yield "objective"
    if a.config.named_searches()[one.task].calibrate != b.config.named_searches()[other.task].calibrate:
        yield "calibration"


def _same_model(a: RunHistory, b: RunHistory) -> bool:
    """True if both use the same weights with the same prompt layout. A run that has only begun may not know
    its model yet; then the configurations are compared."""
    infos = [run.manifest.scorer if run.manifest is not None else None for run in (a, b)]
    if all(infos):
        used = {(info.model, info.revision, info.layout) for info in infos if info is not None}
        return len(used) == 1
    configured = {
        (run.config.scorer_model, run.config.scorer.revision, run.config.scorer.layout) for run in (a, b)
    }
    return len(configured) == 1


def _same_split(a: RunHistory, b: RunHistory, one: TaskHistory, other: TaskHistory) -> bool:
    """True if both have the same training examples and the same shots in every prompt."""
    split, others = a.config.split, b.config.split
    if split.shots != others.shots or (split.shots and a.config.seed != b.config.seed):
        return False
    if one.examples and other.examples:
        return one.examples == other.examples
    drawn = (split.train_fraction, split.train_max, a.config.seed)
    return drawn == (others.train_fraction, others.train_max, b.config.seed)


def _objective(run: RunHistory, task: TaskHistory) -> tuple[str, float, bool]:
    """The name of a task's objective with its settings. A run of an earlier version does not hold the name
    that "auto" stood for."""
    search = run.config.named_searches()[task.task]
    if (overview := run.overview(task.task)) is not None:
        name = overview.objective
        return name.removesuffix(PER_TOKEN), search.beta, name.endswith(PER_TOKEN)
    automatic = search.objective == "auto" and task.examples
    name = resolve_auto(task.examples) if automatic else search.objective
    return name, search.beta, bool(search.per_token)


def _value(run: RunHistory, key: str, redact: Callable[[str], str]) -> str:
    """The value of a key as JSON, without secrets; for a section, what differs from its defaults."""
    path = tuple(key.split("."))
    if secretive(path) or _FREE in path:
        return HIDDEN
    value: Any = run.config
    for part in path:
        if isinstance(value, BaseModel):
            value = getattr(value, part)
        elif int(part) < len(value):
            value = value[int(part)]
        else:
            return ABSENT
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
    return redact(json.dumps(value, ensure_ascii=False))
