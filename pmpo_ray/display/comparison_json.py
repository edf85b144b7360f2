"""The comparison of two runs as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pmpo_ray.display.numbers import json_number, plain_json
from pmpo_ray.history.comparison import RunComparison, Side, TaskComparison
from pmpo_ray.history.task_facts import word_diff


def comparison_json(comparison: RunComparison) -> dict[str, Any]:
    """The document that `pmpo compare --json` prints. Losses are in nats, accuracies and their differences (B
    minus A) from 0 to 1; a number that does not exist is null."""
    return {
        "a": comparison.a,
        "b": comparison.b,
        "tasks": [_task_json(task) for task in comparison.tasks],
        "only_a": list(comparison.only_a),
        "only_b": list(comparison.only_b),
        "differences": [asdict(key) for key in comparison.differences],
    }


def _task_json(task: TaskComparison) -> dict[str, Any]:
    return {
        "task": task.task,
        "a": _side_json(task.a),
        "b": _side_json(task.b),
        "comparable": not task.obstacles,
        "obstacles": list(task.obstacles),
        "paired": None if task.paired is None else plain_json(asdict(task.paired)),
        "p_adjusted": task.p_adjusted,
        "significant": task.significant,
        "diff": [asdict(piece) for piece in word_diff(task.a.best, task.b.best)],
    }


def _side_json(side: Side) -> dict[str, Any]:
    document = asdict(side)
    cost = document.pop("cost")
    return {**document, **cost, "loss": json_number(side.loss)}
