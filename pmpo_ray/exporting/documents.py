"""A run's result as a JSON or YAML document, for other programs.

Invariants: both documents have the same content. Losses are in nats, accuracies from 0 to 1 with the bounds
of their 95% confidence intervals; a number that does not exist is null.
"""

from __future__ import annotations

import math

from pmpo_ray.exporting.prompts import ExportedPrompt
from pmpo_ray.exporting.quoting import Value, json_document, yaml_document
from pmpo_ray.history.run_history import RunHistory
from pmpo_ray.outcomes import Interval


def as_json(history: RunHistory, prompts: tuple[ExportedPrompt, ...]) -> dict[str, str]:
    return {"instructions.json": json_document(_document(history, prompts))}


def as_yaml(history: RunHistory, prompts: tuple[ExportedPrompt, ...]) -> dict[str, str]:
    return {"instructions.yaml": yaml_document(_document(history, prompts))}


def _document(history: RunHistory, prompts: tuple[ExportedPrompt, ...]) -> Value:
    versions = history.manifest.versions if history.manifest is not None else {}
    return {
        "run": history.location,
        "pmpo_ray": versions.get("pmpo-ray"),
        "model": prompts[0].model,
        "layout": prompts[0].layout,
        "tasks": [_task(prompt) for prompt in prompts],
    }


def _task(prompt: ExportedPrompt) -> Value:
    task, result = prompt.history, prompt.history.result
    return {
        "task": task.task,
        "instruction": prompt.instruction,
        "start": task.start.candidate.text,
        "finished": result is not None,
        "loss_before": _number(task.start.loss),
        "loss_after": _number(task.best.loss),
        "accuracy_before": _interval(result.accuracy_before) if result is not None else None,
        "accuracy_after": _interval(result.accuracy_after) if result is not None else None,
        "p_value": result.p_value if result is not None else None,
        "shots": [{"input": shot.input, "target": shot.target} for shot in prompt.shots],
        "biases": [{"answer": one.answer, "nats": _number(one.nats)} for one in task.biases],
        "lineage": [
            {
                "id": scored.candidate.id,
                "operator": scored.candidate.operator,
                "round": scored.candidate.round,
                "loss": _number(scored.loss),
                "surprisal": scored.surprisal,
                "text": scored.candidate.text,
                "shots": list(scored.candidate.shots),
            }
            for scored in task.lineage(task.best_id)
        ],
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _interval(interval: Interval | None) -> Value:
    if interval is None:
        return None
    return {"value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n}
