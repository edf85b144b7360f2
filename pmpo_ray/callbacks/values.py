"""Values that all trackers send: the numbers of a round and of a result, and the flattened configuration.

Invariant: no secret leaves through a tracker. `endpoint` sections are left out, and values that look like
credentials are redacted; only instructions are sent verbatim.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from statistics import fmean

from pydantic import BaseModel

from pmpo_ray.callbacks.dispatch import RunStart
from pmpo_ray.config.messages import KeyPath, dotted, secretive
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.tracking import TrackingConfig
from pmpo_ray.outcomes import TaskResult
from pmpo_ray.redaction import Redaction
from pmpo_ray.store import installed_versions
from pmpo_ray.types import RoundRecord


def round_values(record: RoundRecord) -> dict[str, float]:
    """The numbers of one round: losses in nats, counts, tokens, seconds."""
    return {
        "best_loss": record.scored_survivors[0].loss,
        "mean_loss": fmean(scored.loss for scored in record.candidates),
        "candidates": len(record.candidates),
        "refused": len(record.refusals),
        "tokens_scored": record.tokens_scored,
        "tokens_prompted": record.tokens_prompted,
        "tokens_generated": record.tokens_generated,
        "seconds": record.seconds,
    }


def result_values(result: TaskResult) -> dict[str, float]:
    """The numbers of a finished task; accuracies and p-value only if they were measured."""
    values = {"loss_before": result.loss_before, "loss_after": result.loss_after}
    if result.accuracy_before is not None:
        values["accuracy_before"] = result.accuracy_before.value
    if result.accuracy_after is not None:
        values["accuracy_after"] = result.accuracy_after.value
    if result.p_value is not None:
        values["p_value"] = result.p_value
    return values


def flat_config(config: RunConfig) -> dict[str, str]:
    """The values of a configuration that are set, by key path ("search.rounds"), lists and free-form sections
    as JSON; without the sections `tracking` and `endpoint`."""
    redact = Redaction(os.environ)
    return {dotted(path): redact(text) for path, text in _flat(config, ())}


def _flat(section: BaseModel, above: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    for key in type(section).model_fields:
        path, value = (*above, key), getattr(section, key)
        if value is None or secretive(path) or isinstance(value, TrackingConfig):
            continue
        if isinstance(value, BaseModel):
            yield from _flat(value, path)
        elif isinstance(value, str):
            yield path, value
        else:
            yield path, json.dumps(value, default=_plain)


def _plain(entry: BaseModel) -> dict[str, object]:
    """An entry of a list, such as a task, without its default values."""
    return entry.model_dump(mode="json", exclude_defaults=True)


def environment(run: RunStart) -> dict[str, str]:
    """The versions of the installed software, and the engines and models of a run."""
    values = {f"version.{name}": version for name, version in installed_versions().items()}
    for role, info in (("scorer", run.scorer), ("rewriter", run.rewriter)):
        values |= {f"engine.{role}.{name}": str(value) for name, value in asdict(info).items() if value}
    return values


def sendable(instruction: str) -> str:
    """The instruction verbatim, except that lone surrogates, which UTF-8 cannot encode and only a start
    instruction can contain, become escapes."""
    return instruction.encode("utf-8", "backslashreplace").decode("utf-8")


def disclosed(text: str) -> str:
    """An error text without secrets."""
    return sendable(Redaction(os.environ)(text))
