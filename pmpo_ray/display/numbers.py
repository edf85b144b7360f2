"""Numbers as text: losses, accuracies, p-values, amounts and trends; and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pmpo_ray.outcomes import Interval

_BARS = "▁▂▃▄▅▆▇█"
TREND_WIDTH = 10
"""Characters of a spark line in the live table."""


def spark(losses: Sequence[float], width: int = TREND_WIDTH) -> str:
    """Losses as a line of bars, scaled to their range: at most `width` of them, evenly spaced, the first and
    the last included. A loss that is not finite is a dot."""
    if len(losses) > width:
        losses = [losses[round(i * (len(losses) - 1) / (width - 1))] for i in range(width)]
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite:
        return "·" * len(losses)
    low, span = min(finite), max(finite) - min(finite)
    top = len(_BARS) - 1
    return "".join(
        _BARS[round((loss - low) / span * top) if span > 0 else 0] if math.isfinite(loss) else "·"
        for loss in losses
    )


def amount(number: int) -> str:
    """A count of tokens in at most five characters: 950, 12.3k, 4.6M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size * 0.9995:
            value = number / size
            return f"{value:.0f}{unit}" if value >= 100 else f"{value:.1f}{unit}"
    return str(number)


def tokens_words(scored: int, prompted: int, generated: int) -> str:
    """The tokens of a search in words: read by the scorer, read by the rewriter, written by the rewriter."""
    return f"{amount(scored)} tokens scored, {amount(prompted)} prompted, {amount(generated)} generated"


def loss_text(loss: float) -> str:
    """A loss in a table."""
    return f"{loss:.3f}" if math.isfinite(loss) else "–"


def p_value_text(value: float) -> str:
    """A p-value in a sentence: "p = 0.012" or "p < 0.001"."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def accuracy_text(interval: Interval | None) -> str:
    """An accuracy with its interval, with decimals."""
    if interval is None:
        return "not evaluated"
    return f"{interval.value * 100:.1f}% [{interval.low * 100:.1f}, {interval.high * 100:.1f}]"


def json_number(value: float) -> float | None:
    """The number as JSON can hold it: None if it is not finite."""
    return value if math.isfinite(value) else None


def plain_json(value: Any) -> Any:
    """The value, in lists and dictionaries too, as JSON can hold it."""
    if isinstance(value, float):
        return json_number(value)
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    return [plain_json(item) for item in value] if isinstance(value, list | tuple) else value


def percent_text(interval: Interval | None) -> str:
    """An accuracy with its interval in a table, without a percent sign."""
    if interval is None:
        return "–"
    ends = f"[{interval.low * 100:.0f},{interval.high * 100:.0f}]"
    return f"{interval.value * 100:.1f} {ends:8}"


def count_text(number: int, noun: str) -> str:
    """A number with its noun: "1 round", "2 rounds"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
