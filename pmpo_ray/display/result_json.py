"""The result of a run as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from pmpo_ray.display.numbers import json_number
from pmpo_ray.outcomes import TaskFailure, TaskResult


def result_json(
    results: Sequence[TaskResult], run_dir: str, failed: Sequence[TaskFailure] = ()
) -> dict[str, object]:
    """The document that `pmpo optimize --json` prints. Losses are in nats, accuracies from 0 to 1; a number
    that does not exist is null. `shots` are the demonstrations that belong to the best instruction,
    `prompt_before` and `prompt_after` the median tokens of a training row's prompt (0: unknown). `biases` are
    the constants of calibrated choices: the model's answer is the one with the highest log-likelihood less
    its bias, in nats. `labels_before` and `labels_after` are the accuracies by label, null if the labels are
    even. `failed` lists the tasks without a result."""
    return {
        "run_dir": run_dir,
        "tasks": [_task_json(result) for result in results],
        "failed": [{"task": failure.task, "reason": failure.reason} for failure in failed],
    }


def _task_json(result: TaskResult) -> dict[str, object]:
    before, after = result.accuracy_before, result.accuracy_after
    tested = after or before
    return {
        "task": result.task,
        "rounds": result.rounds,
        "loss_before": json_number(result.loss_before),
        "loss_after": json_number(result.loss_after),
        "accuracy_before": None if before is None else before.value,
        "accuracy_after": None if after is None else after.value,
        "accuracy_before_interval": None if before is None else asdict(before),
        "accuracy_after_interval": None if after is None else asdict(after),
        "labels_before": None if result.labels_before is None else asdict(result.labels_before),
        "labels_after": None if result.labels_after is None else asdict(result.labels_after),
        "p_value": result.p_value,
        "n_test": 0 if tested is None else tested.n,
        "held_out": result.held_out,
        "too_long": result.too_long,
        "tokens_scored": result.tokens_scored,
        "tokens_prompted": result.tokens_prompted,
        "tokens_generated": result.tokens_generated,
        "seconds": result.seconds,
        "prompt_before": result.prompt_before,
        "prompt_after": result.prompt_after,
        "best": result.best,
        "shots": [asdict(shot) for shot in result.shots],
        "biases": [{"answer": one.answer, "nats": json_number(one.nats)} for one in result.biases],
    }
