"""The documents that `pmpo show --json` prints, with complete texts.

Invariants: losses and importances are in nats, accuracies from 0 to 1; a number that does not exist is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from pmpo_ray.display.numbers import json_number
from pmpo_ray.display.summary_json import summary_json
from pmpo_ray.history.held_out import NOTHING, HeldOut, held_out_results, task_summary
from pmpo_ray.history.run_history import RunHistory, TaskHistory
from pmpo_ray.history.task_facts import (
    analysed,
    cost_of,
    hard_examples,
    operator_counts,
    refusal_counts,
    state_of,
    steps,
    word_diff,
)
from pmpo_ray.outcomes import Interval

HARD_EXAMPLES = 3
"""Number of the hardest training examples, before and after each."""
Document = dict[str, object]


def overview_json(history: RunHistory) -> Document:
    """All tasks in the configuration's order; of a waiting task only the name is known."""
    tasks = {task.task: task for task in history.tasks}
    held = held_out_results(history)
    return {
        **_run(history),
        "tasks": [
            {**_figures(history, tasks.get(name), held.get(name, NOTHING)), "task": name}
            for name in history.config.named_searches()
        ],
    }


def task_json(history: RunHistory, task: TaskHistory) -> Document:
    """One task with the history of its best instruction."""
    part, result = analysed(task), task.result
    held = held_out_results(history, task.task).get(task.task, NOTHING)
    summary = task_summary(history, task.task)
    overview = history.overview(task.task)
    return {
        **_run(history),
        **_figures(history, task, held),
        "task": task.task,
        "stopped": result.stopped if result is not None else None,
        "overview": None if overview is None else asdict(overview),
        "start": task.start.candidate.text,
        "diff": [asdict(piece) for piece in word_diff(task.start.candidate.text, task.best.candidate.text)],
        "lineage": [
            {
                "id": step.scored.candidate.id,
                "round": step.scored.candidate.round,
                "operator": step.scored.candidate.operator,
                "loss": json_number(step.scored.loss),
                "surprisal": None if step.scored.surprisal is None else json_number(step.scored.surprisal),
                "change": None if step.change is None else json_number(step.change),
                "text": step.scored.candidate.text,
                "shots": list(step.scored.candidate.shots),
                "hard_case": step.scored.candidate.hard_case,
                "request": step.scored.candidate.request,
            }
            for step in steps(task, task.best_id)
        ],
        "operators": [asdict(count) for count in operator_counts(task)],
        "refusals": dict(refusal_counts(task)),
        "analysed": None if part is None else part[0].candidate.id,
        "segments": [
            asdict(row.segment) | {"importance": json_number(row.importance)}
            for row in (part[1] if part is not None else ())
        ],
        "hard_examples": [
            asdict(hard.example)
            | {"loss_before": json_number(hard.loss_before), "loss_after": json_number(hard.loss_after)}
            for hard in hard_examples(task, HARD_EXAMPLES)
        ],
        "evaluation": None if summary is None else summary_json(summary, history.location),
    }


def interval_json(interval: Interval | None) -> Mapping[str, object] | None:
    """An accuracy with its interval and number of examples."""
    return None if interval is None else asdict(interval)


def _run(history: RunHistory) -> Document:
    manifest = history.manifest
    return {
        "run_dir": history.location,
        "ended": None if manifest is None else manifest.ended,
        "pools": {} if manifest is None else {role: asdict(use) for role, use in manifest.pools.items()},
    }


def _figures(history: RunHistory, task: TaskHistory | None, held: HeldOut) -> Document:
    if task is None:
        return {
            "state": "waiting",
            "rounds": None,
            "losses": [],
            "best": None,
            "shots": [],
            "significant": False,
            **_NOTHING,
        }
    return {
        "state": state_of(history, task),
        "rounds": len(task.records) - 1,
        "losses": [json_number(loss) for loss in task.losses],
        "best": task.best.candidate.text,
        "shots": [{"input": shot.input, "target": shot.target} for shot in task.demonstrations],
        "loss_before": json_number(task.start.loss),
        "loss_after": json_number(task.best.loss),
        "accuracy_before": interval_json(held.before),
        "accuracy_after": interval_json(held.after),
        "labels_before": None if held.labels_before is None else asdict(held.labels_before),
        "labels_after": None if held.labels_after is None else asdict(held.labels_after),
        "p_value": held.p_value,
        "tests": held.tests,
        "held_out": held.held_out,
        "too_long": held.too_long,
        "significant": held.verdict in ("better", "worse"),
        **asdict(cost_of(task)),
    }


_NOTHING: Document = dict.fromkeys(
    (
        "loss_before",
        "loss_after",
        "accuracy_before",
        "accuracy_after",
        "labels_before",
        "labels_after",
        "p_value",
        "tests",
        "held_out",
        "too_long",
        "tokens_scored",
        "tokens_prompted",
        "tokens_generated",
        "seconds",
    )
)
