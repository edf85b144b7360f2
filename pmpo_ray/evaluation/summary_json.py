"""A summary of an evaluation as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from pmpo_ray.evaluation.summary import Summary


def summary_json(summary: Summary, run_dir: str) -> dict[str, Any]:
    """What `pmpo evaluate --json` prints: rows, gains, overall and predictions as in `Summary`, null where a
    number does not exist; accuracies and their differences from 0 to 1, losses in nats."""
    gains = [asdict(gain) | {"significant": gain.significant} for gain in summary.gains]
    document = asdict(summary) | {"gains": gains}
    return {"run_dir": run_dir, **{key: _plain(value) for key, value in document.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
