"""A comparison of two runs as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pmpo_ray.display.numbers import json_number
from pmpo_ray.history.comparison import RunComparison, Side, TaskComparison
from pmpo_ray.history.task_facts import word_diff


def comparison_json(found: RunComparison) -> dict[str, Any]:
    """What `pmpo compare --json` prints. Losses in nats, accuracies and their differences (B less A) from 0
    to 1, tokens, seconds; null where a number does not exist."""
    return {
        "a": found.a,
        "b": found.b,
        "tasks": [_task_json(task) for task in found.tasks],
        "only_a": list(found.only_a),
        "only_b": list(found.only_b),
        "differences": [asdict(key) for key in found.differences],
    }


def _task_json(task: TaskComparison) -> dict[str, Any]:
    return {
        "task": task.task,
        "a": _side_json(task.a),
        "b": _side_json(task.b),
        "comparable": not task.obstacles,
        "obstacles": list(task.obstacles),
        "paired": None if task.paired is None else asdict(task.paired),
        "p_adjusted": task.p_adjusted,
        "significant": task.significant,
        "diff": [asdict(piece) for piece in word_diff(task.a.best, task.b.best)],
    }


def _side_json(side: Side) -> dict[str, Any]:
    document = asdict(side)
    cost = document.pop("cost")
    return {**document, **cost, "loss": json_number(side.loss)}
