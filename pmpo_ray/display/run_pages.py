"""A run folder on a terminal: its tasks at a glance, or one task's best instruction and how it came about.

Invariants: texts from models and data are shown, never interpreted; what is deleted, inserted, helpful or
harmful can be told without colours; a run at work is shown as far as it is.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pmpo_ray.display.evaluation_tables import show as show_tables
from pmpo_ray.display.evaluation_tables import tables
from pmpo_ray.display.numbers import accuracy_text, amount, loss_text, p_value_text, percent_text, spark
from pmpo_ray.display.run_json import HARD_EXAMPLES
from pmpo_ray.evaluation.conditions import BEST
from pmpo_ray.history.held_out import NOTHING, HeldOut, held_out_results, task_summary
from pmpo_ray.history.run_history import RunHistory, TaskHistory
from pmpo_ray.history.task_facts import (
    Cost,
    OperatorCount,
    PieceKind,
    TaskState,
    analysed,
    cost_of,
    hard_examples,
    operator_counts,
    state_of,
    steps,
    word_diff,
)
from pmpo_ray.store import Manifest
from pmpo_ray.text import excerpt, in_line, shortened_name, visible

_STATES: Mapping[TaskState, str] = {
    "done": "green",
    "running": "cyan",
    "unfinished": "yellow",
    "waiting": "dim",
}
_PIECES: Mapping[PieceKind, tuple[str, str, str]] = {
    "same": ("", "", ""),
    "deleted": ("[-", "-]", "red"),
    "inserted": ("{+", "+}", "green"),
}
"""What stands before and behind a piece of a diff, and its colour."""
_BAR = 16
"""Characters of the longest bar."""
_INPUT, _WANTED, _INSTRUCTION = 120, 60, 120
"""Characters that stand for a longer text."""
_WIDE = 110
"""Columns from which on the overview has room for whole trends and longer names."""


def show_overview(history: RunHistory, console: Console) -> None:
    """Print a line a task, in the configuration's order."""
    found = {task.task: task for task in history.tasks}
    held = held_out_results(history)
    jobs = list(history.config.named_searches())
    wide = console.width >= _WIDE
    names = max(12, min(30 if wide else 14, max(map(len, jobs))))
    table = _table("task", "state", "round", "loss", "after", "trend", "acc. %", "after", "best instruction")
    # Where there is too little room, it is the instruction that gives way.
    for column in table.columns[:-1]:
        column.no_wrap = True
    for name in jobs:
        cells = _overview_cells(history, found.get(name), held.get(name, NOTHING), 10 if wide else 6)
        table.add_row(Text(shortened_name(name, names)), *cells)
    console.print(table)
    console.print(
        Text(
            "acc.: held-out accuracy, after with its 95% interval; *: significantly different (corrected for "
            "the number of tasks)",
            style="dim",
        )
    )
    console.print(Text("pmpo show RUN TASK tells how an instruction came about", style="dim"))
    _show_run(history, console)


def _overview_cells(history: RunHistory, task: TaskHistory | None, held: HeldOut, trend: int) -> list[Text]:
    """What follows a task's name; None for a task without a finished round."""
    if task is None:
        return [Text("waiting", style=_STATES["waiting"]), *(Text("–") for _ in range(7))]
    state = state_of(history, task)
    before, after = held.before, held.after
    changed = held.verdict in ("better", "worse")
    return [
        Text(state, style=_STATES[state]),
        Text(str(len(task.records) - 1)),
        Text(loss_text(task.start.loss)),
        Text(loss_text(task.best.loss)),
        Text(spark(task.losses, trend), style="cyan"),
        Text(f"{before.value * 100:.1f}" if before else "–"),
        Text(percent_text(after) + ("*" if changed else " ") if after else "–"),
        Text(excerpt(task.best.candidate.text, _INSTRUCTION), no_wrap=True, overflow="ellipsis"),
    ]


def show_task(history: RunHistory, task: TaskHistory, console: Console) -> None:
    """Print a task's page."""
    console.print(Rule(Text(in_line(task.task), style="bold"), align="left"))
    console.print(Text(_state(history, task)), soft_wrap=True)
    for part in (_instruction(task), _facts(history, task), _way(task), _importance(task), _hard(task)):
        console.print(Text())
        console.print(part)
    console.print(Text())
    _show_held_out(history, task, console)
    console.print(Text())
    console.print(Text(_cost(task)))
    _show_run(history, console)


def _show_held_out(history: RunHistory, task: TaskHistory, console: Console) -> None:
    summary = task_summary(history, task.task)
    if summary is None:
        console.print(Text("no evaluation yet; `pmpo evaluate` compares with free baselines", style="dim"))
        return
    show_tables(tables(summary), console)
    if history.has_many_tasks:
        console.print(Text("here p-values are not corrected for the number of tasks", style="dim"))
    if any(row.name == BEST and row.instruction != task.best.candidate.text for row in summary.rows):
        note = "its best is an earlier one; `pmpo evaluate` measures the one above"
        console.print(Text(note, style="yellow"))


def diff_text(before: str, after: str) -> Text:
    """The word diff of two texts, with its marks also where there are colours."""
    shown = Text()
    for piece in word_diff(before, after):
        opening, closing, colour = _PIECES[piece.kind]
        shown.append(f"{opening}{visible(piece.text)}{closing}", style=colour)
    return shown


def _state(history: RunHistory, task: TaskHistory) -> str:
    finished = len(task.records) - 1
    if task.result is not None:
        return f"done after {finished} rounds (stopped by: {in_line(task.result.stopped)})"
    so_far = f"{finished} rounds of {history.config.named_searches()[task.task].rounds} are finished"
    if history.at_work:
        return f"running: {so_far}"
    where = shlex.quote(in_line(history.location))
    return f"unfinished: {so_far}; continue with: pmpo optimize --run-dir {where}"


def _instruction(task: TaskHistory) -> RenderableType:
    start, best = task.start.candidate.text, task.best.candidate.text
    parts = [Text("best instruction", style="dim"), Text(visible(best), style="bold"), Text()]
    if best == start:
        return Group(*parts, Text("it is the one that the search began with", style="dim"))
    title = Text("what changed since the start: [-deleted-] {+inserted+}", style="dim")
    return Group(*parts, title, diff_text(start, best))


def _facts(history: RunHistory, task: TaskHistory) -> RenderableType:
    held = held_out_results(history, task.task).get(task.task, NOTHING)
    table = _table("", "before", "after")
    table.add_row("training loss", loss_text(task.start.loss), Text(loss_text(task.best.loss), style="bold"))
    table.add_row(
        "held-out accuracy", accuracy_text(held.before), Text(accuracy_text(held.after), style="bold")
    )
    if held.p_value is None:
        return table
    verdict = "significant" if held.verdict in ("better", "worse") else "NOT significant"
    basis = ", corrected for the number of tasks" if history.has_many_tasks else ""
    note = f"{p_value_text(held.p_value)}: the difference is {verdict}{basis}"
    return Group(table, Text(note, style="dim"))


def _way(task: TaskHistory) -> RenderableType:
    table = _table("round", "made by", "loss", "change", "instruction")
    for step in steps(task, task.best_id):
        candidate = step.scored.candidate
        table.add_row(
            str(candidate.round),
            candidate.operator,
            loss_text(step.scored.loss),
            "" if step.change is None else f"{step.change:+.3f}",
            Text(excerpt(candidate.text, _INSTRUCTION)),
        )
    counts = "; ".join(map(_count, operator_counts(task)))
    return Group(Text("the way to the best", style="dim"), table, Text(f"tried: {counts}", style="dim"))


def _count(count: OperatorCount) -> str:
    parts = {"survived": count.survived, "refused": count.refused, "failed": count.failed}
    others = (f", {number} {what}" for what, number in parts.items() if number)
    return f"{count.operator} {count.scored} scored{''.join(others)}"


def _importance(task: TaskHistory) -> RenderableType:
    found = analysed(task)
    if found is None:
        return Text("importance of its parts: none was analysed", style="dim")
    scored, rows = found
    name = scored.candidate.id
    whose = "its parts" if name == task.best_id else f"the parts of its ancestor {name}"
    title = f"importance of {whose}: + helps, - hurts, in nats of training loss without the part"
    most = max((abs(row.importance) for row in rows if math.isfinite(row.importance)), default=0.0)
    table = _table("", "", "")
    table.show_header = False
    for row in rows:
        colour = "green" if row.importance > 0 else "red"
        table.add_row(
            f"{row.importance:+.3f}",
            Text(_bar(row.importance, most), style=colour),
            Text(visible(row.segment.text.strip())),
        )
    return Group(Text(title, style="dim"), table)


def _bar(value: float, most: float) -> str:
    """A bar for a value among others of which the largest is `most`; a value that is not finite is larger."""
    if not math.isfinite(value):
        return "█" * _BAR
    return "█" * math.ceil(abs(value) / most * _BAR) if most else ""


def _hard(task: TaskHistory) -> RenderableType:
    found = hard_examples(task, HARD_EXAMPLES)[:HARD_EXAMPLES]
    if not found:
        return Text("hardest training examples: this run folder does not hold its examples", style="dim")
    table = _table("loss", "after", "wanted", "input")
    for hard in found:
        table.add_row(
            loss_text(hard.loss_before),
            loss_text(hard.loss_after),
            Text(excerpt(hard.example.target, _WANTED)),
            Text(excerpt(hard.example.input, _INPUT)),
        )
    return Group(Text("hardest training examples now", style="dim"), table)


def _cost(task: TaskHistory) -> str:
    return f"this task: {cost_text(cost_of(task))}"


def cost_text(cost: Cost) -> str:
    """Tokens and seconds in words."""
    scored, generated = amount(cost.tokens_scored), amount(cost.tokens_generated)
    return f"{scored} tokens scored, {generated} generated, {cost.seconds:.0f} s"


def _show_run(history: RunHistory, console: Console) -> None:
    """What the run as a whole took, and where it is."""
    if history.manifest is not None:
        console.print(Text("; ".join(_spent(history.manifest))))
    console.print(Text(f"run folder: {in_line(history.location)}"), soft_wrap=True)


def _spent(manifest: Manifest) -> Iterator[str]:
    if manifest.ended is None:
        yield f"the run began {in_line(manifest.started)} and has not ended"
    else:
        spent = Cost(manifest.tokens_scored, manifest.tokens_generated, manifest.seconds)
        yield f"the run: {cost_text(spent)}"
    for role, use in manifest.pools.items():
        yield f"{in_line(role)}: replicas lost {use.lost}, calls made again {use.retries}"


def _table(*titles: str) -> Table:
    """A table whose columns of numbers, told by their titles, are right-aligned."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    numbers = {"round", "loss", "after", "acc. %", "change"}
    for title in titles:
        table.add_column(title, justify="right" if title in numbers else "left")
    return table
