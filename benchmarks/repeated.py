"""Gains of several searches for the same task, with both of their intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pmpo_ray.evaluation.paired_tests import Comparison, compare
from pmpo_ray.evaluation.searches import over_searches
from pmpo_ray.evaluation.statistics import holm
from pmpo_ray.store import RunStore

Values = Mapping[str, float]
"""1 for right and 0 for wrong, by the id of the held-out example."""


def values_of_run(folder: str) -> dict[tuple[str, str], Values]:
    """The values of an evaluated run by task and name of the instruction."""
    results = RunStore.open(folder).read_evaluation() or ()
    return {
        (one.condition.task, one.condition.name): {o.example: float(o.right) for o in one.outcomes}
        for one in results
    }


def both_intervals(searches: Sequence[tuple[Values, Values]]) -> dict[str, Any]:
    """The mean gain of searches, given as (before, after): "examples" with the interval for these searches on
    other examples, in which an example of several searches counts once, with the mean of its values;
    "searches" for other searches on other examples, None for one search."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for before, after in searches:
        for example in before:
            pairs.setdefault(example, []).append((before[example], after[example]))
    over_examples = compare(
        [fmean(before for before, _ in values) for values in pairs.values()],
        [fmean(after for _, after in values) for values in pairs.values()],
    )
    gains = [{example: after[example] - before[example] for example in before} for before, after in searches]
    return {
        "examples": _document(over_examples),
        "searches": _document(over_searches(gains)) if len(gains) > 1 else None,
    }


def _document(comparison: Comparison) -> dict[str, Any]:
    found = comparison.difference
    return {
        "gain": found.value,
        "low": found.low,
        "high": found.high,
        "method": found.method,
        "p_value": comparison.p_value,
        "p_adjusted": comparison.p_value,
    }


def corrected(families: Iterable[Sequence[dict[str, Any]]]) -> None:
    """Correct the p-values of each family of results of `both_intervals`, by Holm's method."""
    for family in families:
        for kind in ("examples", "searches"):
            found = [one[kind] for one in family if one[kind] is not None]
            for one, p_value in zip(found, holm([one["p_value"] for one in found]), strict=True):
                one["p_adjusted"] = p_value


def merged_rows(
    file: Path, rows: Iterable[dict[str, Any]], identity: Callable[[dict[str, Any]], Any]
) -> list[dict[str, Any]]:
    """The rows of a result file with `rows` among them, sorted by `identity`; of two with the same one, the
    new one. Without the values by example, which the run folders keep."""
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    kept += [{key: value for key, value in row.items() if key != "values"} for row in rows]
    return sorted({identity(row): row for row in kept}.values(), key=identity)


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a result file."""
    file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def gain_cell(gain: float, low: float, high: float) -> str:
    """A gain in points with its interval."""
    return f"{gain * 100:+.1f} [{low * 100:+.1f}, {high * 100:+.1f}]"
