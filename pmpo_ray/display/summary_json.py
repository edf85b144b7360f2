"""The summary of an evaluation as JSON.

Invariant: the result is plain JSON: no NaN, no infinity.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pmpo_ray.display.numbers import plain_json
from pmpo_ray.evaluation.summary import Summary


def summary_json(summary: Summary, run_dir: str) -> dict[str, Any]:
    """The document that `pmpo evaluate --format json` prints: "run_dir", and the fields of `Summary` ("rows",
    "gains", "overall", "predictions"). Accuracies and their differences are shares from 0 to 1, losses are in
    nats; a number that is not finite is null. An interval names its method."""
    gains = [asdict(gain) | {"significant": gain.significant} for gain in summary.gains]
    document = asdict(summary) | {"gains": gains}
    return {"run_dir": run_dir, **{key: plain_json(value) for key, value in document.items()}}
