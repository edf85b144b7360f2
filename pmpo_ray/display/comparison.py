"""The comparison of two runs on a terminal.

Invariants: texts from models, data and configurations are shown, never interpreted; a loss counts as lower
only if the losses can be compared.
"""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pmpo_ray.display.accuracies import corrected_words, interval_words
from pmpo_ray.display.numbers import amount, loss_text, percent_text
from pmpo_ray.display.run_pages import diff_text
from pmpo_ray.evaluation.paired_tests import Comparison
from pmpo_ray.history.comparison import RunComparison, Side, TaskComparison
from pmpo_ray.text import excerpt, in_line, shortened_name

_NUMBERS = 66
"""Columns of the numbers next to the names of tasks."""
_VALUE = 200
"""Characters of a configuration value."""


def show_comparison(comparison: RunComparison, console: Console) -> None:
    """Print two runs side by side."""
    for letter, location in (("A", comparison.a), ("B", comparison.b)):
        console.print(Text(f"{letter}: {in_line(location)}"), soft_wrap=True)
    console.print()
    console.print(_outcomes(comparison, max(12, min(24, console.width - _NUMBERS))))
    for note in _notes(comparison):
        console.print(Text(note, style="dim"))
    console.print()
    console.print(_costs(comparison, max(12, min(24, console.width - _NUMBERS))))
    _show_differences(comparison, console)
    if len(comparison.tasks) == 1:
        _show_texts(comparison.tasks[0], console)


def _outcomes(comparison: RunComparison, names: int) -> Table:
    table = _table("task", "loss A", "loss B", "lower", "acc. A %", "acc. B %", "B minus A", "p")
    for task in comparison.tasks:
        table.add_row(
            Text(shortened_name(task.task, names)),
            loss_text(task.a.loss),
            loss_text(task.b.loss),
            _lower(task),
            _accuracy(task, task.a),
            _accuracy(task, task.b),
            "not paired" if task.paired is None else _points(task.paired),
            "" if task.p_adjusted is None else f"{task.p_adjusted:.2g}{'*' if task.significant else ' '}",
        )
    return table


def _accuracy(task: TaskComparison, side: Side) -> str:
    """The accuracy of a side, with its interval unless the difference has one."""
    if task.paired is not None and side.accuracy is not None:
        return f"{side.accuracy.value * 100:.1f}"
    return percent_text(side.accuracy)


def _lower(task: TaskComparison) -> str:
    """The run with the lower loss: A or B, "=" for equal losses, "?" if they cannot be compared."""
    losses = (task.a.loss, task.b.loss)
    if task.obstacles or not all(map(math.isfinite, losses)):
        return "?"
    if losses[0] == losses[1]:
        return "="
    return "A" if losses[0] < losses[1] else "B"


def _points(paired: Comparison) -> str:
    points = paired.difference
    return f"{points.value * 100:+.1f} [{points.low * 100:+.1f},{points.high * 100:+.1f}]"


def _notes(comparison: RunComparison) -> list[str]:
    paired = [task.paired.difference for task in comparison.tasks if task.paired is not None]
    accuracies = [side.accuracy for task in comparison.tasks for side in (task.a, task.b)]
    notes = ["acc.: held-out accuracy of the best instruction"]
    if words := interval_words([*accuracies, *paired]):
        notes[0] += f"; 95% intervals: {words}"
    if paired:
        counts = [difference.n for difference in paired]
        numbers = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        notes.append(
            f"B minus A: points, on the same {numbers} held-out examples; p: {corrected_words(len(paired))}, "
            "*: significant"
        )
    if len(paired) < len(comparison.tasks):
        notes.append(
            "not paired: the best instructions were not evaluated on the same examples, so overlapping "
            "intervals prove little; run `pmpo evaluate` on both runs to compare them"
        )
    reasons: dict[tuple[str, ...], list[str]] = {}
    for task in comparison.tasks:
        if task.obstacles:
            reasons.setdefault(task.obstacles, []).append(task.task)
    for obstacles, names in reasons.items():
        of = "" if len(names) == len(comparison.tasks) else f" of {', '.join(map(in_line, names))}"
        verb = "differs" if len(obstacles) == 1 else "differ"
        notes.append(f"?: the losses{of} cannot be compared: {' and '.join(obstacles)} {verb}")
    for letter, only in (("A", comparison.only_a), ("B", comparison.only_b)):
        if only:
            notes.append(f"only in {letter}: {', '.join(map(in_line, only))}")
    return notes


def _costs(comparison: RunComparison, names: int) -> Table:
    titles = ("rounds A", "B", "scored A", "B", "prompted A", "B", "generated A", "B", "seconds A", "B")
    table = _table("task", *titles)
    for task in comparison.tasks:
        table.add_row(
            Text(shortened_name(task.task, names)),
            *(_rounds(side) for side in (task.a, task.b)),
            *(amount(side.cost.tokens_scored) for side in (task.a, task.b)),
            *(amount(side.cost.tokens_prompted) for side in (task.a, task.b)),
            *(amount(side.cost.tokens_generated) for side in (task.a, task.b)),
            *(f"{side.cost.seconds:.0f}" for side in (task.a, task.b)),
        )
    return table


def _rounds(side: Side) -> str:
    return str(side.rounds) if side.state == "done" else f"{side.rounds} ({side.state})"


def _show_differences(comparison: RunComparison, console: Console) -> None:
    console.print()
    if not comparison.differences:
        console.print(Text("the configurations are the same", style="dim"))
        return
    table = _table("configuration", numbers=False)
    for letter in ("A", "B"):
        table.add_column(letter)
    for key in comparison.differences:
        table.add_row(key.key, Text(excerpt(key.a, _VALUE)), Text(excerpt(key.b, _VALUE)))
    console.print(table)


def _show_texts(task: TaskComparison, console: Console) -> None:
    console.print()
    if task.a.best == task.b.best:
        console.print(Text("both have the same best instruction", style="dim"))
        return
    console.print(Text("the best instructions, from A to B: [-only A-] {+only B+}", style="dim"))
    console.print(diff_text(task.a.best, task.b.best))


def _table(*titles: str, numbers: bool = True) -> Table:
    """A table; all columns except the first are right-aligned if they are `numbers`."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for index, title in enumerate(titles):
        table.add_column(title, justify="right" if index and numbers else "left", no_wrap=True)
    return table
