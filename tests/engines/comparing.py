"""Compare the scores of two engines on real data, within the promised tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pmpo_ray.config.tasks import SplitConfig, TaskConfig
from pmpo_ray.tasks import load_task, split_task
from pmpo_ray.types import ExampleScore, ScoreRequest

TOLERANCE = 1e-3
"""The promise, in nats per token, in fp32."""


def unit(name: str, data_dir: Path, count: int, shots: int = 0) -> ScoreRequest:
    """The `count` shortest training examples of a task, behind its instruction."""
    task = load_task(TaskConfig(name=name), str(data_dir), 0)
    split = split_task(task, SplitConfig(shots=shots), 0)
    short = sorted(split.train, key=lambda example: len(example.input) + len(example.target))
    return ScoreRequest(task.instruction, tuple(short[:count]), split.shots)


def difference(actual: Sequence[ExampleScore], expected: Sequence[ExampleScore]) -> float:
    """The largest difference of an answer's log-likelihoods, in nats per token, over the same tokens."""
    largest = 0.0
    for one, other in zip(actual, expected, strict=True):
        assert one.context_tokens == other.context_tokens
        pairs = zip((one.target, *one.negatives), (other.target, *other.negatives), strict=True)
        for mine, theirs in pairs:
            assert mine.tokens == theirs.tokens
            largest = max(largest, abs(mine.logprob - theirs.logprob) / mine.tokens)
    return largest
