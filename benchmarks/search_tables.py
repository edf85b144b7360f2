"""The tables of `benchmarks.search`: its searches, the means of their cells, and every winning text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from benchmarks.repeated import both_intervals, corrected, gain_cell
from pmpo_ray.evaluation.statistics import LEVEL
from pmpo_ray.text import in_line

Row = dict[str, Any]

_CELL = ("model", "task", "preset", "demonstrations")
_OTHERS = {
    "start": "the start",
    "free": "the strongest free instruction",
    "random": "random demonstrations",
}
_BASES = {"examples": "examples", "searches": "searches and examples"}


def table(rows: Sequence[Row]) -> str:
    """The searches as Markdown."""
    lines = [
        "| model | task | preset | demos | seed | start | best | strongest free | p | random demos | loss "
        "| tokens scored + prompted + generated | to the paper's loss |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        to_paper = row["tokens_to_paper_loss"]
        cells = [
            *(str(row[key]) for key in (*_CELL, "seed")),
            f"{row['accuracy_before']:.1%}",
            f"{row['accuracy_after']:.1%}",
            f"{row['accuracy_free']:.1%} {row['strongest_free']}",
            f"{row['p_over_free']:.3g}",
            _share(row["accuracy_random"]),
            f"{row['loss_before']:.3f} to {row['loss_after']:.3f}",
            " + ".join(f"{row['tokens'][kind]:,}" for kind in ("scored", "prompted", "generated")),
            "–" if to_paper is None else f"{to_paper:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def means(rows: Sequence[Row]) -> list[Row]:
    """The cells: mean accuracies of their searches, and the mean gains with both intervals (`both_intervals`)
    over each of the others that every search was measured beside. p-values are corrected for the cells that
    are compared with the same (Holm)."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in _CELL), []).append(row)
    averages = []
    for cell, group in groups.items():
        average: Row = {**dict(zip(_CELL, cell, strict=True)), "seed": "mean"}
        average["seeds"] = [row["seed"] for row in group]
        for key in ("accuracy_before", "accuracy_after", "accuracy_free", "accuracy_random"):
            found = [row[key] for row in group]
            average[key] = None if None in found else fmean(found)
        for other in _OTHERS:
            pairs = [(row["values"][other], row["values"]["best"]) for row in group]
            average[f"over_{other}"] = both_intervals(pairs) if all(before for before, _ in pairs) else None
        averages.append(average)
    corrected([one[key] for one in averages if one[key]] for key in (f"over_{other}" for other in _OTHERS))
    return averages


def mean_table(averages: Sequence[Row]) -> str:
    """The cells as Markdown."""
    lines = [
        "| model | task | preset | demos | searches | start | strongest free | random demos | best "
        "| best over | gain [95% over examples] | p | [95% over searches and examples] | p |",
        "|" + "---|" * 14,
    ]
    for one in averages:
        accuracies = [one[f"accuracy_{name}"] for name in ("before", "free", "random", "after")]
        cells = [*(str(one[key]) for key in _CELL), str(len(one["seeds"])), *map(_share, accuracies)]
        for other, words in _OTHERS.items():
            if (over := one[f"over_{other}"]) is not None:
                gains = [part for basis in _BASES for part in _gain(over[basis])]
                lines.append(f"| {' | '.join([*cells, words, *gains])} |")
    lines.append("\np: corrected for the cells that are compared with the same (Holm)")
    return "\n".join(lines)


def _gain(found: dict[str, Any] | None) -> tuple[str, str]:
    if found is None:
        return "one search", "–"
    return gain_cell(found["gain"], found["low"], found["high"]), f"{found['p_adjusted']:.3g}"


def _share(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{accuracy:.1%}"


def verdict(averages: Sequence[Row]) -> str:
    """The numbers of cells whose mean gain, or loss, is significant, for each preset and number."""
    lines = []
    for preset, number in dict.fromkeys((one["preset"], one["demonstrations"]) for one in averages):
        own = [one for one in averages if (one["preset"], one["demonstrations"]) == (preset, number)]
        for other, words in _OTHERS.items():
            for basis, basis_words in _BASES.items():
                found = [one[f"over_{other}"][basis] for one in own if one[f"over_{other}"] is not None]
                gains = [part["gain"] for part in found if part is not None and part["p_adjusted"] < LEVEL]
                rose, fell = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
                if found:
                    lines.append(
                        f"{preset}, {number} demonstrations, over {words}: {rose} of {len(found)} gains "
                        f"significant over {basis_words}; losses: {fell}"
                    )
    return "\n".join(lines)


def problem(row: Row) -> tuple[str, str, int]:
    """Searches that differ by their settings alone have the same."""
    return row["model"], row["task"], row["seed"]


def reached(rows: Sequence[Row]) -> str:
    """How many tokens the searches of the preset `best` needed for the final loss of the paper's search, as a
    share of those that the paper's took."""
    totals = {problem(row): sum(row["tokens"].values()) for row in rows if row["preset"] == "paper"}
    lines = []
    for number in sorted({row["demonstrations"] for row in rows if row["preset"] == "best"}):
        pairs = [
            (row["tokens_to_paper_loss"], totals[problem(row)])
            for row in rows
            if (row["preset"], row["demonstrations"]) == ("best", number) and problem(row) in totals
        ]
        shares = [spent / total for spent, total in pairs if spent is not None]
        if pairs:
            lines.append(
                f"best, {number} demonstrations: {len(shares)} of {len(pairs)} searches reached the paper's "
                "final loss" + (f", with {median(shares):.0%} of its tokens (median)" if shares else "")
            )
    return "\n".join(lines) or "the paper's search was not made"


def proposals(rows: Sequence[Row]) -> str:
    """What became of the proposals of each operator, and why texts were refused."""
    counts: dict[str, Counter[str]] = {}
    refused: Counter[str] = Counter()
    for row in rows:
        refused.update({reason.split(" example ")[0]: number for reason, number in row["refused"].items()})
        for count in row["operators"]:
            counts.setdefault(count["operator"], Counter()).update(
                {name: number for name, number in count.items() if name != "operator"}
            )
    total = sum(map(_proposed, counts.values()))
    lines = [
        "| operator | share of proposals | scored | left the race | survived | refused | beyond the budget |",
        "|" + "---|" * 7,
    ]
    for name, count in counts.items():
        lines.append(
            f"| {name} | {_proposed(count) / total:.1%} | {count['scored']} | {count['left']} "
            f"| {count['survived']} | {count['refused']} | {count['unpaid']} |"
        )
    reasons = "; ".join(f"{reason}: {number}" for reason, number in refused.most_common(12))
    return "\n".join([*lines, f"\nrefused: {reasons or 'none'}"])


def _proposed(count: Counter[str]) -> int:
    return sum(count[name] for name in ("scored", "refused", "failed", "unpaid"))


def winners(rows: Sequence[Row]) -> str:
    """Every winning instruction, on one line each, with the number of its demonstrations."""
    lines = ["| model | task | preset | demos | seed | winning instruction |", "|---|---|---|---|---|---|"]
    for row in rows:
        text = in_line(row["instruction"]).replace("|", "\\|")
        shown = f"{len(row['shots'])} of {row['demonstrations']}"
        cells = [row["model"], row["task"], row["preset"], shown, str(row["seed"]), text]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
