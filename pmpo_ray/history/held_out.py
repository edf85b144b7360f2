"""What was measured on held-out examples, task by task: from the run's evaluation, else from its own end.

Invariant: a verdict is about the instruction that is the best now against the start, on the same examples,
and corrected for the number of tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pmpo_ray.evaluation.conditions import BEST, START
from pmpo_ray.evaluation.instructions import BASELINES
from pmpo_ray.evaluation.statistics import LEVEL, holm
from pmpo_ray.evaluation.summary import Gain, Row, Summary, summarise
from pmpo_ray.history.run_history import RunHistory
from pmpo_ray.history.task_facts import current_results
from pmpo_ray.types import Interval

Verdict = Literal["better", "worse", "not significant", "not evaluated"]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One task's held-out results. `rows` and `gains` are those of an evaluation, empty without one; `free`
    is the gain over the strongest instruction that nothing was optimised for."""

    before: Interval | None
    after: Interval | None
    p_value: float | None
    verdict: Verdict
    rows: tuple[Row, ...] = ()
    start: Gain | None = None
    free: Gain | None = None


NOTHING = HeldOut(None, None, None, "not evaluated")


def held_out_results(history: RunHistory) -> Mapping[str, HeldOut]:
    """The held-out results by task, of tasks that have some. Of several models or numbers of shots the first
    is the one that verdicts are about; an evaluation from before the run went on to another best has none."""
    found = _of_results(history)
    summary = summarise(history.evaluation, {START, *BASELINES})
    first = summary.rows[0] if summary.rows else None
    best = {task.task: task.best.candidate.text for task in history.tasks}
    for task in dict.fromkeys(row.task for row in summary.rows):
        rows = tuple(row for row in summary.rows if row.task == task)
        main = [row for row in rows if first and (row.model, row.shots) == (first.model, first.shots)]
        named = {row.name: row.accuracy for row in main}
        gains = {
            gain.against: gain
            for gain in summary.gains
            if first and gain.task == task and (gain.model, gain.shots) == (first.model, first.shots)
        }
        start = gains.get("start")
        if any(row.name == BEST and row.instruction != best.get(task) for row in main):
            found[task] = replace(found.get(task, NOTHING), rows=rows)
            continue
        found[task] = HeldOut(
            before=named.get(START),
            after=named.get(BEST, named.get(START)),
            p_value=start.p_adjusted if start else None,
            verdict=_verdict(start.p_adjusted, start.accuracy.difference.value) if start else "not evaluated",
            rows=rows,
            start=start,
            free=gains.get("free"),
        )
    return found


def _of_results(history: RunHistory) -> dict[str, HeldOut]:
    results = current_results(history)
    tested = {result.task: result.p_value for result in results if result.p_value is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    found = {}
    for result in results:
        before, after, p_value = result.accuracy_before, result.accuracy_after, adjusted.get(result.task)
        if before is None or after is None or p_value is None:
            found[result.task] = NOTHING
        else:
            found[result.task] = HeldOut(
                before, after, p_value, _verdict(p_value, after.value - before.value)
            )
    return found


def _verdict(p_value: float, difference: float) -> Verdict:
    if p_value >= LEVEL or difference == 0:
        return "not significant"
    return "better" if difference > 0 else "worse"


def held_out(history: RunHistory, task: str) -> Summary | None:
    """The evaluation of one task, its p-values not corrected for the run's other tasks (to look at them all
    would take seconds); None where there was none."""
    own = [one for one in history.evaluation if one.condition.task == task]
    return summarise(own, {START, *BASELINES}) if own else None
