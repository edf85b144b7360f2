"""The summary of an evaluation as JSON.

Invariant: the result is plain JSON: no NaN, no infinity.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pmpo_ray.display.numbers import json_number
from pmpo_ray.evaluation.summary import Summary


def summary_json(summary: Summary, run_dir: str) -> dict[str, Any]:
    """The document that `pmpo evaluate --format json` prints: "run_dir", and the fields of `Summary` ("rows",
    "gains", "overall", "predictions"). Accuracies and their differences are shares from 0 to 1, losses are in
    nats; a number that is not finite is null."""
    gains = [asdict(gain) | {"significant": gain.significant} for gain in summary.gains]
    document = asdict(summary) | {"gains": gains}
    return {"run_dir": run_dir, **{key: _plain(value) for key, value in document.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return json_number(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
