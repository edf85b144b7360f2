"""The report's charts, drawn by Vega-Lite as SVG when the report is written.

Invariants: colours are the page's (CSS variables), so that a chart follows light and dark mode; a dot has the
id of its candidate or example in `data-id`; charts contain no scripts, and labels are text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pmpo_ray.outcomes import Interval, ReplicaCount
from pmpo_ray.report.svg import svg

_GOLDEN = 0.6180339887498949
_SPREAD = 0.68
"""Width over which the dots of one round are spread, in rounds."""
_OUTLIER = 4.0
"""Losses beyond this multiple of the range from the best loss to the start's are drawn at the upper edge."""
WIDE, NARROW = 860, 300
"""Widths of a plot in pixels, for a desktop and for a phone."""
_TICK = 26
"""Pixels of a tick with its label."""

_OPERATORS: Mapping[str, tuple[str, str]] = {
    "seed": ("var(--ink)", "square"),
    "rewrite": ("var(--rewrite)", "circle"),
    "induce": ("var(--induce)", "triangle-right"),
    "contrast": ("var(--contrast)", "triangle-left"),
    "shorten": ("var(--shorten)", "wedge"),
    "repair": ("var(--repair)", "arrow"),
    "mask_drop": ("var(--drop)", "diamond"),
    "compose": ("var(--compose)", "cross"),
    "demonstrate": ("var(--shots)", "triangle-down"),
}
_OTHER = ("var(--other)", "triangle-up")
"""Colour and shape of candidates from custom operators."""

_NAMES = 110
"""Pixels for the names of the instructions."""

Value = str | float | int | bool | None
Rows = list[dict[str, Value]]


@dataclass(frozen=True, slots=True)
class Dot:
    """A candidate in the chart of losses. `loss` is None for one that was refused or failed."""

    id: str
    round: int
    operator: str
    survived: bool
    loss: float | None


@dataclass(frozen=True, slots=True)
class Bar:
    """A named mean with its interval, in the chart of held-out results."""

    name: str
    interval: Interval
    best: bool


def loss_chart(
    dots: Sequence[Dot], best_losses: Sequence[float], lineage: Sequence[str], width: int = WIDE
) -> str:
    """Every candidate's training loss by round, the best so far as a step line, the lineage of the best
    instruction as a thin line, and refused texts in a row below."""
    rounds = len(best_losses) - 1
    low, high = _loss_range(dots, best_losses)
    rows = _spread(dots, high)
    places = {row["id"]: row for row in rows}
    ticks = {"title": None, "grid": False, "values": _ticks(rounds, width), "format": "d"}
    x = {
        "field": "x",
        "type": "quantitative",
        "scale": {"domain": [-0.5, rounds + 0.5], "nice": False},
        "axis": {**ticks, "labels": False},
    }
    y = {
        "field": "loss",
        "type": "quantitative",
        "scale": {"domain": [low, high], "nice": False, "zero": False},
        "axis": {"title": "training loss, nats", "tickCount": 5, "format": _precision(high - low)},
    }
    steps: Rows = []
    for number, loss in enumerate(best_losses):
        steps += [{"x": number + side, "loss": min(loss, high), "n": number} for side in (-0.5, 0.5)]
    way: Rows = [places[name] | {"n": n} for n, name in enumerate(lineage) if name in places]
    line = {"x": x, "y": y, "order": {"field": "n"}}
    layers = [
        _layer(steps, {"type": "line", "stroke": "var(--best)", "strokeWidth": 2.5, "opacity": 0.55}, line),
        _layer(way, {"type": "line", "stroke": "var(--ink)", "strokeWidth": 1, "strokeDash": [3, 3]}, line),
        _layer(
            [row for row in rows if row["loss"] is not None], _point(), {"x": x, "y": y, **_dot_looks(dots)}
        ),
    ]
    refused = _refused(rows, {**x, "axis": {**ticks, "title": "round"}})
    charts = [
        {"width": width, "height": 260, "layer": layers},
        {"width": width, "height": 34, **refused},
    ]
    return svg({"vconcat": charts, "spacing": 6})


def _refused(rows: Rows, x: Mapping[str, Any]) -> dict[str, Any]:
    """The row of refused and failed texts below the losses."""
    y = {
        "field": "level",
        "type": "quantitative",
        "scale": {"domain": [0, 1]},
        "axis": {"title": None, "values": [], "grid": False},
    }
    cross = {**_point(), "shape": "cross", "angle": 45, "size": 34, "fill": "var(--refused)"}
    encoding = {"x": x, "y": y, "description": {"field": "id"}}
    return _layer([row for row in rows if row["loss"] is None], cross, encoding)


def loss_limit(dots: Sequence[Dot], best_losses: Sequence[float]) -> float:
    """The loss above which the chart draws a dot at its upper edge."""
    return _loss_range(dots, best_losses)[1]


def _loss_range(dots: Sequence[Dot], best_losses: Sequence[float]) -> tuple[float, float]:
    """The range of losses in the chart: most of them, but not so many that the decrease looks flat."""
    finite = sorted(dot.loss for dot in dots if dot.loss is not None and math.isfinite(dot.loss)) or [0.0]
    low, upper = finite[0], finite[int(len(finite) * 0.9)]
    first = next((loss for loss in best_losses if math.isfinite(loss)), low)
    drop = first - low
    high = max(first + drop / 2, min(upper, low + drop * _OUTLIER)) if drop > 0 else upper
    margin = (high - low) * 0.06 or abs(low) * 0.05 or 0.5
    return low - margin, high + margin


def _spread(dots: Sequence[Dot], high: float) -> Rows:
    """The dots of every round side by side, spread so that no two share a position."""
    counts: dict[int, int] = {}
    rows: Rows = []
    for dot in dots:
        place = counts[dot.round] = counts.get(dot.round, -1) + 1
        offset = ((place * _GOLDEN) % 1 - 0.5) * _SPREAD if dot.round else 0.0
        loss = None if dot.loss is None else min(dot.loss, high) if math.isfinite(dot.loss) else high
        rows.append(
            {
                "id": dot.id,
                "x": round(dot.round + offset, 3),
                "loss": loss,
                "level": 0.25 + 0.5 * (place % 2),
                "operator": dot.operator,
                "survived": dot.survived,
            }
        )
    return rows


def _point() -> dict[str, Any]:
    return {"type": "point", "filled": True, "size": 52, "opacity": 1, "strokeWidth": 1.2}


def _dot_looks(dots: Sequence[Dot]) -> dict[str, Any]:
    """The looks of dots: survivors are full, others pale; colour and shape stand for the operator."""
    names = list(dict.fromkeys(dot.operator for dot in dots))
    looks = [_OPERATORS.get(name, _OTHER) for name in names]
    colours = {"domain": names, "range": [colour for colour, _ in looks]}
    shapes = {"domain": names, "range": [shape for _, shape in looks]}
    colour = {"field": "operator", "type": "nominal", "legend": None, "scale": colours}
    return {
        "fill": colour,
        "stroke": colour,
        "shape": {"field": "operator", "type": "nominal", "legend": None, "scale": shapes},
        "fillOpacity": {"condition": {"test": "datum.survived", "value": 1}, "value": 0.22},
        "description": {"field": "id"},
    }


def example_chart(before: Sequence[float], after: Sequence[float]) -> str:
    """Every training example's loss under the start and the best instruction; below the line, it fell."""
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if math.isfinite(b) and math.isfinite(a)]
    if not pairs:
        return ""
    high = max(max(pair) for pair in pairs) * 1.06 or 1.0
    low = min(0.0, min(min(pair) for pair in pairs))
    axis = {"type": "quantitative", "scale": {"domain": [low, high], "nice": False}}
    look = {"tickCount": 4, "format": _precision(high - low)}
    rows: Rows = [
        {"before": b, "after": a, "id": f"e{index}", "fell": a <= b}
        for index, (b, a) in enumerate(zip(before, after, strict=True))
        if math.isfinite(b) and math.isfinite(a)
    ]
    x = {"field": "before", **axis, "axis": {**look, "title": "loss under the start"}}
    y = {"field": "after", **axis, "axis": {**look, "title": "loss under the best"}}
    ends: Rows = [{"before": low, "after": low}, {"before": high, "after": high}]
    return svg(
        {
            "width": 300,
            "height": 260,
            "layer": [
                _layer(
                    ends,
                    {"type": "line", "stroke": "var(--soft)", "strokeDash": [4, 4], "strokeWidth": 1},
                    {"x": x, "y": y},
                ),
                _layer(
                    rows,
                    {**_point(), "fillOpacity": 0.5},
                    {
                        "x": x,
                        "y": y,
                        "fill": {
                            "condition": {"test": "datum.fell", "value": "var(--helps)"},
                            "value": "var(--hurts)",
                        },
                        "description": {"field": "id"},
                    },
                ),
            ],
        }
    )


def held_out_chart(bars: Sequence[Bar], width: int = WIDE) -> str:
    """Held-out accuracies with their 95% intervals, a row per instruction."""
    rows: Rows = [
        {
            "name": bar.name,
            "order": index,
            "value": bar.interval.value * 100,
            "low": bar.interval.low * 100,
            "high": bar.interval.high * 100,
            "best": bar.best,
        }
        for index, bar in enumerate(bars)
    ]
    y = {
        "field": "name",
        "type": "nominal",
        "sort": {"field": "order"},
        "axis": {"title": None, "labelLimit": _NAMES, "grid": False},
    }
    low = min((bar.interval.low for bar in bars), default=0.0)
    high = max((bar.interval.high for bar in bars), default=1.0)
    scale = {"domain": [max(0, math.floor(low * 20) * 5), min(100, math.ceil(high * 20) * 5)], "nice": False}
    x = {
        "field": "value",
        "type": "quantitative",
        "scale": scale,
        "axis": {"title": "held-out accuracy, %", "tickCount": 6},
    }
    colour = {"condition": {"test": "datum.best", "value": "var(--best)"}, "value": "var(--soft)"}
    span = {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "stroke": colour}
    dot = {"x": x, "y": y, "fill": colour}
    layers = [
        _layer(rows, {"type": "rule", "strokeWidth": 3, "opacity": 0.6}, span),
        _layer(rows, {"type": "point", "filled": True, "size": 90, "opacity": 1}, dot),
    ]
    return svg({"width": min(width, 620) - _NAMES, "height": {"step": 26}, "layer": layers})


def interval_strip(before: Interval | None, after: Interval | None) -> str:
    """Two accuracies with their intervals on a line from 0 to 100%, for a row of the overview."""
    rows: Rows = [
        {"y": place, "value": one.value, "low": one.low, "high": one.high, "best": place == 1}
        for place, one in enumerate((before, after))
        if one is not None
    ]
    x = {"field": "value", "type": "quantitative", "scale": {"domain": [0, 1]}, "axis": None}
    y = {
        "field": "y",
        "type": "quantitative",
        "scale": {"domain": [-0.6, 1.6], "reverse": True},
        "axis": None,
    }
    colour = {"condition": {"test": "datum.best", "value": "var(--best)"}, "value": "var(--soft)"}
    span = {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "stroke": colour}
    dot = {"x": x, "y": y, "fill": colour}
    layers = [
        _layer(rows, {"type": "rule", "strokeWidth": 2.5, "opacity": 0.55}, span),
        _layer(rows, {"type": "point", "filled": True, "size": 38, "opacity": 1}, dot),
    ]
    return svg({"width": 190, "height": 24, "padding": 1, "layer": layers})


def spark_line(losses: Iterable[float]) -> str:
    """The best loss by round, without axes."""
    rows: Rows = [
        {"round": number, "loss": loss} for number, loss in enumerate(losses) if math.isfinite(loss)
    ]
    encoding = {
        "x": {"field": "round", "type": "quantitative", "axis": None},
        "y": {"field": "loss", "type": "quantitative", "scale": {"zero": False}, "axis": None},
    }
    mark = {"type": "line", "stroke": "var(--best)", "strokeWidth": 2, "interpolate": "step-after"}
    return svg({"width": 90, "height": 22, "padding": 2, **_layer(rows, mark, encoding)})


def replica_chart(counts: Sequence[ReplicaCount], width: int = WIDE) -> str:
    """The number of replicas of each pool with a loaded model, over the time of one driver."""
    began = counts[0].at
    ended = counts[-1].at
    unit, size = ("hours", 3600.0) if ended - began > 7200 else ("minutes", 60.0)
    rows: Rows = [
        {"time": (count.at - began) / size, "ready": count.ready, "pool": count.pool} for count in counts
    ]
    high = max(count.ready for count in counts)
    names = list(dict.fromkeys(count.pool for count in counts))
    colours = {"scorer": "var(--rewrite)", "rewriter": "var(--drop)"}
    encoding = {
        "x": {
            "field": "time",
            "type": "quantitative",
            "axis": {"title": unit, "grid": False, "tickCount": 6},
        },
        "y": {
            "field": "ready",
            "type": "quantitative",
            "axis": {"title": "replicas ready", "tickMinStep": 1, "tickCount": 4, "format": "d"},
            "scale": {"domain": [0, high + 0.25], "nice": False},
        },
        "stroke": {
            "field": "pool",
            "type": "nominal",
            "scale": {"domain": names, "range": [colours.get(name, "var(--best)") for name in names]},
            "legend": {"title": None, "orient": "top", "symbolStrokeWidth": 3},
        },
    }
    mark = {"type": "line", "interpolate": "step-after", "strokeWidth": 2}
    return svg({"width": width, "height": 130, **_layer(rows, mark, encoding)})


def _ticks(rounds: int, width: int) -> list[int]:
    step = max(1, math.ceil(rounds * _TICK / width))
    return list(range(0, rounds + 1, step))


def _precision(span: float) -> str:
    """The number format that keeps the ticks of an axis over `span` distinct."""
    return ".1f" if span > 3 else ".2f" if span > 0.2 else ".3f"


def _layer(rows: Rows, mark: Mapping[str, Any], encoding: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": {"values": rows}, "mark": dict(mark), "encoding": dict(encoding)}
