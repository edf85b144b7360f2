"""The rows and the tables of the comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.peers.answering import Measured
from benchmarks.peers.running import FinishedRun
from benchmarks.repeated import Values, both_intervals, corrected, gain_cell, merged_rows, write_rows
from pmpo_ray.evaluation.paired_tests import compare, pooled
from pmpo_ray.evaluation.statistics import mean_interval
from pmpo_ray.text import in_line

Row = dict[str, Any]

OURS = ("pmpo", "pmpo_demos")
"""The contestants that are compared with the best of all others."""
_BASELINES = {"start": "start", "description": "description alone"}


def row_of(
    done: FinishedRun,
    task: str,
    seed: int,
    budget: int,
    found: Measured,
    baselines: Mapping[str, Measured],
) -> Row:
    """The result of one run. `baselines` are the measured instructions of _BASELINES."""
    accuracy = mean_interval(list(found.values.values()))
    row: Row = {
        "task": task,
        "contestant": done.contestant,
        "seed": seed,
        "budget": budget,
        "accuracy": accuracy.value,
        "low": accuracy.low,
        "high": accuracy.high,
        "n": accuracy.n,
        "without_label": found.without_label,
        "tokens": done.tokens,
        "requests": sum(done.account["requests"].values()),
        "refused": done.account["refused"],
        "failed": done.account["failed"],
        "seconds": done.seconds,
        "stopped": done.stopped,
        "own_score": done.outcome.get("own_score"),
        "instruction": done.outcome["instruction"],
        "shots": done.shots,
        "values": {"best": found.values, **{name: one.values for name, one in baselines.items()}},
    }
    for name, baseline in baselines.items():
        over = compare(list(baseline.values.values()), [found.values[one] for one in baseline.values])
        row[f"accuracy_{name}"] = fmean(baseline.values.values())
        row[f"over_{name}"] = {
            "gain": over.difference.value,
            "low": over.difference.low,
            "high": over.difference.high,
            "p_value": over.p_value,
        }
    return row


def tables(rows: Sequence[Row]) -> str:
    """The runs of every budget and task as Markdown, the winners' texts behind each table."""
    parts = []
    for (budget, task), group in _groups(rows, "budget", "task"):
        first = group[0]
        lines = [
            f"### {task}, {budget:,} tokens",
            "",
            f"Start {first['accuracy_start']:.1%}, description alone {first['accuracy_description']:.1%}, on "
            f"{first['n']} held-out rows.",
            "",
            "| contestant | seed | accuracy [95%] | over the start [95%] | over the description [95%] "
            "| without a label | tokens | requests | seconds | stopped by |",
            "|" + "---|" * 10,
            *map(_run_line, group),
            "",
            *map(_winner_line, group),
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _run_line(row: Row) -> str:
    cells = [
        row["contestant"],
        str(row["seed"]),
        f"{row['accuracy']:.1%} [{row['low'] * 100:.1f}, {row['high'] * 100:.1f}]",
        *(gain_cell(*_bounds(row[f"over_{name}"])) for name in _BASELINES),
        f"{row['without_label']:.1%}",
        f"{row['tokens']:,}",
        f"{row['requests']:,}",
        f"{row['seconds']:,.0f}",
        row["stopped"],
    ]
    return f"| {' | '.join(cells)} |"


def _winner_line(row: Row) -> str:
    shots = f" ({len(row['shots'])} demonstrations)" if row["shots"] else ""
    return f"- {row['contestant']}, seed {row['seed']}{shots}: {in_line(row['instruction'])}"


def _bounds(found: Mapping[str, float]) -> tuple[float, float, float]:
    return found["gain"], found["low"], found["high"]


def _groups(rows: Sequence[Row], *keys: str) -> Iterator[tuple[tuple[Any, ...], list[Row]]]:
    """The rows with equal values of `keys`, in the order in which the values first occur."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    yield from groups.items()


def means(rows: Sequence[Row]) -> str:
    """The means over seeds of every budget, task and contestant as Markdown."""
    lines = [
        "| budget | task | contestant | searches | accuracy | over the start [95%] "
        "| over the description [95%] | tokens | seconds |",
        "|" + "---|" * 9,
    ]
    for (budget, task, contestant), group in _groups(rows, "budget", "task", "contestant"):
        gains = [
            both_intervals([(row["values"][name], row["values"]["best"]) for row in group])
            for name in _BASELINES
        ]
        cells = [
            f"{budget:,}",
            task,
            contestant,
            str(len(group)),
            f"{fmean(row['accuracy'] for row in group):.1%}",
            *(gain_cell(*_bounds(gain["searches"] or gain["examples"])) for gain in gains),
            f"{fmean(row['tokens'] for row in group):,.0f}",
            f"{fmean(row['seconds'] for row in group):,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("\nIntervals are over searches and examples, those of one search over examples.")
    return "\n".join(lines)


def against_best_peer(rows: Sequence[Row]) -> list[Row]:
    """The differences between each of OURS and the peer with the highest mean accuracy on the same held-out
    rows, for every budget and task (`both_intervals`), and over all tasks of a budget. p-values are corrected
    for the tasks and budgets of one contestant."""
    found: list[Row] = []
    for (budget,), of_budget in _groups(rows, "budget"):
        for ours in OURS:
            cells = [
                cell
                for (task,), group in _groups(of_budget, "task")
                if (cell := _against(ours, group, {"budget": budget, "task": task})) is not None
            ]
            found += [*cells, *([_over_tasks(cells)] if len(cells) > 1 else [])]
    for ours in OURS:
        corrected([[one["over"] for one in found if one["contestant"] == ours and one["task"] != "all"]])
    for one in found:
        del one["pairs"]
    return found


def _against(ours: str, rows: Sequence[Row], cell: Row) -> Row | None:
    """The difference to the best peer on one task; None without both. It is the best in hindsight, which
    favours the peers."""
    runs = {name: {row["seed"]: row for row in group} for (name,), group in _groups(rows, "contestant")}
    own = runs.get(ours, {})
    peers = {
        name: fmean(row["accuracy"] for row in of.values()) for name, of in runs.items() if name not in OURS
    }
    if not own or not peers:
        return None
    best = max(peers, key=lambda name: peers[name])
    seeds = sorted(own.keys() & runs[best].keys())
    if not seeds:
        return None
    pairs = [(runs[best][seed]["values"]["best"], own[seed]["values"]["best"]) for seed in seeds]
    return {
        **cell,
        "contestant": ours,
        "peer": best,
        "searches": len(seeds),
        "over": both_intervals(pairs),
        "pairs": pairs,
    }


def _over_tasks(cells: Sequence[Row]) -> Row:
    """The mean difference over tasks, of these searches on other examples of these tasks."""
    values = [
        (_means([before for before, _ in cell["pairs"]]), _means([after for _, after in cell["pairs"]]))
        for cell in cells
    ]
    comparison = pooled(values)
    examples = {
        "gain": comparison.difference.value,
        "low": comparison.difference.low,
        "high": comparison.difference.high,
        "p_adjusted": comparison.p_value,
    }
    return {
        "budget": cells[0]["budget"],
        "task": "all",
        "contestant": cells[0]["contestant"],
        "peer": "the best of each task",
        "searches": sum(cell["searches"] for cell in cells),
        "over": {"examples": examples, "searches": None},
        "pairs": [],
    }


def _means(searches: Sequence[Values]) -> list[float]:
    """The mean of several searches on every example, by the examples' ids."""
    return [fmean(values[example] for values in searches) for example in sorted(searches[0])]


def summary(found: Sequence[Row]) -> str:
    """The results of `against_best_peer` as Markdown."""
    lines = [
        "| budget | task | contestant | best peer | searches | difference [95% over examples] | p "
        "| [95% over searches and examples] | p |",
        "|" + "---|" * 9,
    ]
    for one in found:
        gains = [part for basis in ("examples", "searches") for part in _gain(one["over"][basis])]
        cells = [
            f"{one['budget']:,}",
            one["task"],
            one["contestant"],
            one["peer"],
            str(one["searches"]),
            *gains,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("\nThe best peer is the best in hindsight. p: corrected for tasks and budgets (Holm)")
    return "\n".join(lines)


def _gain(found: dict[str, Any] | None) -> tuple[str, str]:
    return ("–", "–") if found is None else (gain_cell(*_bounds(found)), f"{found['p_adjusted']:.3g}")


def identity(row: Row) -> tuple[str, int, str, int]:
    """The run that a row is of."""
    return row["task"], row["budget"], row["contestant"], row["seed"]


def write(file: Path, rows: Sequence[Row]) -> None:
    """Write the rows to the file. They replace rows of the same runs, and all others stay."""
    write_rows(file, merged_rows(file, rows, identity))
