"""The result of a run on a terminal: a page for one task, tables for several.

Invariant: texts from models and data are shown, never interpreted (no markup, no escape sequences, no text
direction tricks).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pmpo_ray.display.accuracies import (
    BALANCED,
    balanced_lines,
    corrected_words,
    interval_words,
    label_rows,
)
from pmpo_ray.display.calibration import calibration_words
from pmpo_ray.display.demonstrations import demonstrations_table, demonstrations_words
from pmpo_ray.display.numbers import (
    accuracy_text,
    amount,
    count_text,
    loss_text,
    p_value_text,
    percent_text,
    tokens_words,
)
from pmpo_ray.evaluation.statistics import LEVEL, holm
from pmpo_ray.history.held_out import extent_text
from pmpo_ray.outcomes import Interval, TaskResult
from pmpo_ray.text import excerpt, in_line, shortened_name, visible

_EXCERPT = 240
"""Characters of an instruction in the table of several tasks."""


@dataclass(frozen=True, slots=True)
class FinalTable:
    """The result of a run: a page for one task; for several, instructions, a row per task, and the mean."""

    results: Sequence[TaskResult]
    run_dir: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _final(self.results, options.max_width)
        yield Text(f"run folder: {in_line(self.run_dir)}", overflow="fold")


def final_table(results: Sequence[TaskResult], run_dir: str, console: Console) -> None:
    """Print a `FinalTable`, with the path of the run folder on one line whatever its length."""
    for part in _final(results, console.width):
        console.print(part)
    console.print(Text(f"run folder: {in_line(run_dir)}"), soft_wrap=True)


def _final(results: Sequence[TaskResult], width: int) -> Iterator[RenderableType]:
    if len(results) == 1:
        yield _one_task(results[0])
    elif results:
        yield _instructions(results)
        yield Text()
        yield _many_tasks(results, width)
        yield from map(Text, balanced_lines({t.task: (t.labels_before, t.labels_after) for t in results}))
        tokens = tokens_words(
            sum(result.tokens_scored for result in results),
            sum(result.tokens_prompted for result in results),
            sum(result.tokens_generated for result in results),
        )
        yield Text(f"all tasks: {tokens}")


def _one_task(result: TaskResult) -> RenderableType:
    facts = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for title in ("", "before", "after"):
        facts.add_column(title)
    facts.add_row(
        Text("training loss"), Text(loss_text(result.loss_before)), Text(loss_text(result.loss_after))
    )
    facts.add_row(
        Text("held-out accuracy"),
        Text(accuracy_text(result.accuracy_before)),
        Text(accuracy_text(result.accuracy_after), style="bold"),
    )
    for title, *cells in label_rows(result.labels_before, result.labels_after):
        facts.add_row(Text(title), *map(Text, cells))
    if result.prompt_after:
        facts.add_row(
            Text("tokens of a prompt (median)"),
            Text(f"{result.prompt_before:,}"),
            Text(f"{result.prompt_after:,}"),
        )
    spent = (
        f"{count_text(result.rounds, 'round')} (stopped by: {in_line(result.stopped)}), "
        f"{result.seconds:.0f} s, "
        f"{tokens_words(result.tokens_scored, result.tokens_prompted, result.tokens_generated)}"
    )
    basis = _basis(result)
    return Group(
        Rule(Text(in_line(result.task), style="bold"), align="left"),
        Text("instruction before", style="dim"),
        Text(visible(result.start)),
        Text(),
        Text(f"instruction after{_unchanged(result)}", style="dim"),
        Text(visible(result.best), style="bold"),
        *([demonstrations_table(result.shots)] if result.shots else ()),
        Text(),
        facts,
        *([Text(calibration_words(result.biases), style="dim")] if result.biases else ()),
        Text(basis, style="dim"),
        Text(spent),
    )


def _unchanged(result: TaskResult) -> str:
    """What to say of an instruction that is the start; empty for another one."""
    if result.best != result.start:
        return ""
    return " (the same text, now with demonstrations)" if result.shots else " (unchanged)"


def _basis(result: TaskResult) -> str:
    tested = result.accuracy_after or result.accuracy_before
    if tested is None:
        return ""
    extent = extent_text(tested.n, result.held_out, result.too_long)
    basis = f"accuracy with its 95% interval ({interval_words([tested])}) on {extent}"
    if result.p_value is not None:
        verdict = "significant" if result.p_value < LEVEL else "NOT significant"
        basis += f"; the difference is {verdict} ({p_value_text(result.p_value)})"
    return f"{basis}; {BALANCED}" if result.labels_after is not None else basis


def _many_tasks(results: Sequence[TaskResult], width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True, footer=Text("mean"))
    for title in ("loss", "after", "acc. %", "after", "scored", "gener.", "sec."):
        table.add_column(title, justify="right", no_wrap=True)
    better_or_worse = significant(results)
    for result in results:
        table.add_row(
            Text(shortened_name(result.task, max(12, width - 63))),
            Text(loss_text(result.loss_before)),
            Text(loss_text(result.loss_after)),
            Text(percent_text(result.accuracy_before)),
            Text(percent_text(result.accuracy_after) + ("*" if result.task in better_or_worse else " ")),
            Text(amount(result.tokens_scored)),
            Text(amount(result.tokens_generated)),
            Text(f"{result.seconds:.0f}"),
        )
    table.add_section()
    table.add_row(*(Text(cell, style="bold") for cell in _means(results)))
    accuracies = [interval for one in results for interval in (one.accuracy_before, one.accuracy_after)]
    tests = sum(result.p_value is not None for result in results)
    caption = f"acc.: held-out accuracy with its 95% interval ({interval_words(accuracies)})"
    if tests:
        caption += f"; *: significantly different, {corrected_words(tests)}"
    table.caption = Text(caption if any(accuracies) else "acc.: held-out accuracy", style="dim")
    table.caption_justify = "left"
    return table


def significant(results: Sequence[TaskResult]) -> set[str]:
    """The tasks whose accuracy changed significantly, corrected for their number."""
    tested = [(result.task, result.p_value) for result in results if result.p_value is not None]
    adjusted = holm([p_value for _, p_value in tested])
    return {task for (task, _), p_value in zip(tested, adjusted, strict=True) if p_value < LEVEL}


def _means(results: Sequence[TaskResult]) -> list[str]:
    return [
        "mean",
        loss_text(fmean(result.loss_before for result in results)),
        loss_text(fmean(result.loss_after for result in results)),
        _mean_accuracy([result.accuracy_before for result in results]),
        _mean_accuracy([result.accuracy_after for result in results]) + " ",
        amount(round(fmean(result.tokens_scored for result in results))),
        amount(round(fmean(result.tokens_generated for result in results))),
        f"{fmean(result.seconds for result in results):.0f}",
    ]


def _mean_accuracy(intervals: Sequence[Interval | None]) -> str:
    values = [interval.value for interval in intervals if interval is not None]
    return f"{fmean(values) * 100:.1f} {'':8}" if values else "–"


def _instructions(results: Sequence[TaskResult]) -> RenderableType:
    """The instructions of several tasks; a start that all of them share is shown once, at the top."""
    starts = {result.start for result in results}
    table = Table(box=None, padding=(0, 2, 1, 0), pad_edge=False, header_style="bold")
    table.add_column("task", max_width=26)
    table.add_column("instruction after" if len(starts) == 1 else "instruction before and after")
    for result in results:
        after = _unchanged(result).strip() or excerpt(result.best, _EXCERPT)
        if result.shots:
            after += f"\nwith {demonstrations_words(len(result.shots))}, which result.json has"
        before = "" if len(starts) == 1 else f"before: {excerpt(result.start, _EXCERPT)}\nafter: "
        cell = Text.assemble((before, "dim"), after)
        table.add_row(Text(in_line(result.task), overflow="fold"), cell)
    table.caption = Text(
        f"Texts over {_EXCERPT} characters are shortened; result.json has the full texts.", style="dim"
    )
    table.caption_justify = "left"
    if len(starts) > 1:
        return table
    return Group(
        Text("instruction before, every task", style="bold"),
        Text(excerpt(starts.pop(), _EXCERPT)),
        Text(),
        table,
    )
