"""Differences between two configurations, and which of them a continued run allows."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from itertools import zip_longest
from typing import Any

from pydantic import BaseModel

from pmpo_ray.config.messages import KeyPath, dotted
from pmpo_ray.config.run import RunConfig

CHANGEABLE: Mapping[str, str] = {
    "run_dir": "the folder may have been moved, or be named by another path",
    "data_dir": "the same data may lie elsewhere on another machine",
    "ray": "where the work runs does not change its outcome",
    "tracking": "who follows a run does not change its outcome",
    "scorer.replicas": "how many replicas share the work does not change its outcome",
    "scorer.min_replicas": "how many replicas share the work does not change its outcome",
    "scorer.tensor_parallel": "a share of a machine, not a setting of the method",
    "scorer.cpus": "a share of a machine, not a setting of the method",
    "scorer.gpus": "a share of a machine, not a setting of the method",
    "scorer.memory_gb": "a share of a machine, not a setting of the method",
    "scorer.working_memory_gb": "how work is cut does not change its outcome",
    "scorer.threads": "a share of a machine, not a setting of the method",
    "scorer.vllm.kv_cache_gb": "a share of a machine, not a setting of the method",
    "scorer.endpoint.url": "the same model may be served elsewhere",
    "scorer.endpoint.api_key_env": "who pays does not change the outcome",
    "scorer.endpoint.concurrency": "how work is sent does not change its outcome",
    "scorer.endpoint.retries": "how work is sent does not change its outcome",
    "scorer.endpoint.timeout": "how work is sent does not change its outcome",
    "rewriter.replicas": "how many replicas share the work does not change its outcome",
    "rewriter.min_replicas": "how many replicas share the work does not change its outcome",
    "rewriter.tensor_parallel": "a share of a machine, not a setting of the method",
    "rewriter.cpus": "a share of a machine, not a setting of the method",
    "rewriter.gpus": "a share of a machine, not a setting of the method",
    "rewriter.memory_gb": "a share of a machine, not a setting of the method",
    "rewriter.threads": "a share of a machine, not a setting of the method",
    "rewriter.vllm.kv_cache_gb": "a share of a machine, not a setting of the method",
    "rewriter.endpoint.url": "the same model may be served elsewhere",
    "rewriter.endpoint.api_key_env": "who pays does not change the outcome",
    "rewriter.endpoint.concurrency": "how work is sent does not change its outcome",
    "rewriter.endpoint.retries": "how work is sent does not change its outcome",
    "rewriter.endpoint.timeout": "how work is sent does not change its outcome",
    "search.rounds": "a stopping rule: finished rounds stay as they are",
    "search.patience": "a stopping rule: finished rounds stay as they are",
    "search.target_loss": "a stopping rule: finished rounds stay as they are",
    "search.max_tokens": "a stopping rule: finished rounds stay as they are",
    "search.max_seconds": "a stopping rule: finished rounds stay as they are",
}
"""Keys (or whole sections) that may differ between a run's start and its resume, each with the reason: the
finished part of the run would have come out the same."""


def differences(old: RunConfig, new: RunConfig, ignored: Container[str] = CHANGEABLE) -> tuple[str, ...]:
    """Key paths whose values differ, in the order of the configuration, apart from those in `ignored`."""
    return tuple(_differing(old, new, (), ignored))


def _differing(old: Any, new: Any, path: KeyPath, ignored: Container[str]) -> Iterator[str]:
    if dotted(path) in ignored:
        return
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        for key in type(old).model_fields:
            yield from _differing(getattr(old, key), getattr(new, key), (*path, key), ignored)
    elif path == ("tasks",):
        for index, (one, other) in enumerate(zip_longest(old, new)):
            yield from _differing(one, other, (*path, index), ignored)
    elif old != new:
        yield dotted(path)
