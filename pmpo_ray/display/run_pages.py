"""A run folder on a terminal: an overview of its tasks, or one task with the history of its best instruction.

Invariants: texts from models and data are shown, never interpreted; deleted and inserted, helpful and harmful
parts can be told apart without colours; an unfinished run is shown up to its last finished round.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping

from rich.console import Console, Group, RenderableType
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
from pmpo_ray.display.evaluation_tables import show as show_tables
from pmpo_ray.display.evaluation_tables import tables
from pmpo_ray.display.numbers import (
    accuracy_text,
    count_text,
    loss_text,
    p_value_text,
    percent_text,
    spark,
    tokens_words,
)
from pmpo_ray.display.run_json import HARD_EXAMPLES
from pmpo_ray.display.task_overview import overview_line, remarks
from pmpo_ray.evaluation.conditions import BEST, start_name
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
from pmpo_ray.types import Candidate

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
"""The marks before and after a piece of a diff, and its colour."""
_BAR = 16
"""Characters of the longest bar."""
_INPUT, _TARGET, _INSTRUCTION = 120, 60, 120
"""Characters to which longer texts are shortened."""
_WIDE = 110
"""Columns from which the overview has room for full trends and longer names."""


def show_overview(history: RunHistory, console: Console) -> None:
    """Print a line per task, in the configuration's order."""
    tasks = {task.task: task for task in history.tasks}
    held = held_out_results(history)
    searches = list(history.config.named_searches())
    wide = console.width >= _WIDE
    names = max(12, min(30 if wide else 14, max(map(len, searches))))
    table = _table("task", "state", "round", "loss", "after", "trend", "acc. %", "after", "best instruction")
    # On a narrow terminal only the instruction is shortened.
    for column in table.columns[:-1]:
        column.no_wrap = True
    for name in searches:
        cells = _overview_cells(history, tasks.get(name), held.get(name, NOTHING), 10 if wide else 6)
        table.add_row(Text(shortened_name(name, names)), *cells)
    console.print(table)
    for note in _overview_notes(held):
        console.print(Text(note, style="dim"))
    console.print(Text("`pmpo show RUN TASK` shows how a best instruction was found", style="dim"))
    _show_run(history, console)


def _overview_notes(held: Mapping[str, HeldOut]) -> Iterator[str]:
    words = interval_words(one.after for one in held.values())
    if not words:
        yield "acc.: held-out accuracy"
        return
    tests = max(one.tests for one in held.values())
    correction = f"; *: significantly different, {corrected_words(tests)}" if tests else ""
    yield f"acc.: held-out accuracy, after with its 95% interval ({words}){correction}"
    yield from balanced_lines({task: (one.labels_before, one.labels_after) for task, one in held.items()})


def _overview_cells(history: RunHistory, task: TaskHistory | None, held: HeldOut, trend: int) -> list[Text]:
    """The cells after a task's name. `task` is None for a task without a finished round."""
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
    _show_overview(history, task, console)
    parts = [_instruction(task), _facts(history, task), _steps(task), _importance(task), _hard(task)]
    if len(task.records[0].candidates) > 1:
        parts.insert(2, _starts(task))
    for part in parts:
        console.print(Text())
        console.print(part)
    console.print(Text())
    _show_held_out(history, task, console)
    console.print(Text())
    console.print(Text(_cost(task)))
    _show_run(history, console)


def _show_overview(history: RunHistory, task: TaskHistory, console: Console) -> None:
    """Print how the task was taken, and what was odd about its data."""
    overview = history.overview(task.task)
    if overview is not None:
        console.print(Text(overview_line(overview)), soft_wrap=True)
        for remark in remarks(overview):
            console.print(Text(remark, style="yellow"), soft_wrap=True)


def _show_held_out(history: RunHistory, task: TaskHistory, console: Console) -> None:
    summary = task_summary(history, task.task)
    if summary is None:
        note = "not yet compared with free baselines; run `pmpo evaluate`"
        console.print(Text(note, style="dim"))
        return
    show_tables(tables(summary), console)
    if history.has_many_tasks:
        console.print(Text("these p-values are not corrected for the run's other tasks", style="dim"))
    if any(
        (one.condition.task, one.condition.name) == (task.task, BEST) and not task.is_best(one.condition)
        for one in history.evaluation
    ):
        note = "this evaluation is of an earlier best; run `pmpo evaluate` to measure the one above"
        console.print(Text(note, style="yellow"))


def diff_text(before: str, after: str) -> Text:
    """The word diff of two texts, with marks and colours."""
    shown = Text()
    for piece in word_diff(before, after):
        opening, closing, colour = _PIECES[piece.kind]
        shown.append(f"{opening}{visible(piece.text)}{closing}", style=colour)
    return shown


def _state(history: RunHistory, task: TaskHistory) -> str:
    finished = len(task.records) - 1
    if task.result is not None:
        return f"done after {count_text(finished, 'round')} (stopped by: {in_line(task.result.stopped)})"
    so_far = f"{finished} rounds of {history.config.named_searches()[task.task].rounds} are finished"
    if history.at_work:
        return f"running: {so_far}"
    where = shlex.quote(in_line(history.location))
    return f"unfinished: {so_far}; continue with: pmpo optimize --run-dir {where}"


def _instruction(task: TaskHistory) -> RenderableType:
    start, best = task.start.candidate.text, task.best.candidate.text
    parts: list[RenderableType] = [Text("best instruction", style="dim"), Text(visible(best), style="bold")]
    if task.demonstrations:
        parts.append(demonstrations_table(task.demonstrations))
    parts.append(Text())
    if best == start:
        note = "unchanged: the search found nothing better than the start"
        if task.demonstrations:
            note = "the text is the start's: the search added demonstrations"
        return Group(*parts, Text(note, style="dim"))
    title = Text("what changed since the start: [-deleted-] {+inserted+}", style="dim")
    return Group(*parts, title, diff_text(start, best))


def _facts(history: RunHistory, task: TaskHistory) -> RenderableType:
    held = held_out_results(history, task.task).get(task.task, NOTHING)
    table = _table("", "before", "after")
    table.add_row("training loss", loss_text(task.start.loss), Text(loss_text(task.best.loss), style="bold"))
    table.add_row(
        "held-out accuracy", accuracy_text(held.before), Text(accuracy_text(held.after), style="bold")
    )
    for title, *cells in label_rows(held.labels_before, held.labels_after):
        table.add_row(Text(title), *map(Text, cells))
    notes = []
    if task.biases:
        notes.append(calibration_words(task.biases))
    if held.after is not None:
        notes.append(f"on {held.extent}; 95% intervals: {interval_words((held.before, held.after))}")
    if held.labels_after is not None:
        notes.append(BALANCED)
    if held.p_value is not None:
        verdict = "significant" if held.verdict in ("better", "worse") else "NOT significant"
        basis = f", {corrected_words(held.tests)}" if held.tests > 1 else ""
        notes.append(f"{p_value_text(held.p_value)}: the difference is {verdict}{basis}")
    return Group(table, *(Text(note, style="dim") for note in notes))


def _starts(task: TaskHistory) -> RenderableType:
    """The start instructions with their training losses."""
    table = _table("", "loss", "instruction")
    for number, one in enumerate(task.records[0].candidates, 1):
        table.add_row(
            start_name(number), loss_text(one.loss), Text(excerpt(one.candidate.text, _INSTRUCTION))
        )
    return Group(Text("start instructions", style="dim"), table)


def _steps(task: TaskHistory) -> RenderableType:
    path = steps(task, task.best_id)
    read = any(step.scored.surprisal is not None for step in path)
    table = _table("round", "made by", "loss", "change", *(["surprisal"] if read else []), "instruction")
    for step in path:
        candidate, surprisal = step.scored.candidate, step.scored.surprisal
        nats = "" if surprisal is None else f"{surprisal:.2f}"
        table.add_row(
            str(candidate.round),
            candidate.operator,
            loss_text(step.scored.loss),
            "" if step.change is None else f"{step.change:+.3f}",
            *([nats] if read else []),
            Text(f"{_shown(candidate)}{excerpt(candidate.text, _INSTRUCTION)}"),
        )
    counts = "; ".join(map(_count, operator_counts(task)))
    return Group(
        Text("steps to the best instruction", style="dim"), table, Text(f"tried: {counts}", style="dim")
    )


def _shown(candidate: Candidate) -> str:
    """The demonstrations of a candidate, in words."""
    return f"[{demonstrations_words(len(candidate.shots))}] " if candidate.shots else ""


def _count(count: OperatorCount) -> str:
    parts = {
        "survived": count.survived,
        "left the race": count.left,
        "refused": count.refused,
        "failed": count.failed,
        "beyond the budget": count.unpaid,
    }
    others = (f", {number} {what}" for what, number in parts.items() if number)
    return f"{count.operator} {count.scored} scored{''.join(others)}"


def _importance(task: TaskHistory) -> RenderableType:
    part = analysed(task)
    if part is None:
        return Text("importance of its parts: not analysed", style="dim")
    scored, rows = part
    name = scored.candidate.id
    whose = "its parts" if name == task.best_id else f"the parts of its ancestor {name}"
    title = f"importance of {whose}: + helps, - hurts, in nats of training loss without the part"
    largest = max((abs(row.importance) for row in rows if math.isfinite(row.importance)), default=0.0)
    table = _table("", "", "")
    table.show_header = False
    for row in rows:
        colour = "green" if row.importance > 0 else "red"
        table.add_row(
            f"{row.importance:+.3f}",
            Text(_bar(row.importance, largest), style=colour),
            Text(visible(row.segment.text.strip())),
        )
    return Group(Text(title, style="dim"), table)


def _bar(value: float, largest: float) -> str:
    """A bar in proportion to the `largest` value; a value that is not finite has the longest bar."""
    if not math.isfinite(value):
        return "█" * _BAR
    return "█" * math.ceil(abs(value) / largest * _BAR) if largest else ""


def _hard(task: TaskHistory) -> RenderableType:
    hardest = hard_examples(task, HARD_EXAMPLES)[:HARD_EXAMPLES]
    if not hardest:
        note = "hardest training examples: this run folder does not contain its training examples"
        return Text(note, style="dim")
    table = _table("loss", "after", "target", "input")
    for hard in hardest:
        table.add_row(
            loss_text(hard.loss_before),
            loss_text(hard.loss_after),
            Text(excerpt(hard.example.target, _TARGET)),
            Text(excerpt(hard.example.input, _INPUT)),
        )
    return Group(Text("hardest training examples under the best instruction", style="dim"), table)


def _cost(task: TaskHistory) -> str:
    return f"this task: {cost_text(cost_of(task))}"


def cost_text(cost: Cost) -> str:
    """Tokens and seconds as text."""
    tokens = tokens_words(cost.tokens_scored, cost.tokens_prompted, cost.tokens_generated)
    return f"{tokens}, {cost.seconds:.0f} s"


def _show_run(history: RunHistory, console: Console) -> None:
    """Print the cost of the whole run, and its folder."""
    if history.manifest is not None:
        console.print(Text("; ".join(_spent(history.manifest))))
    console.print(Text(f"run folder: {in_line(history.location)}"), soft_wrap=True)


def _spent(manifest: Manifest) -> Iterator[str]:
    if manifest.ended is None:
        yield f"the run began {in_line(manifest.started)} and has not ended"
    else:
        spent = Cost(
            manifest.tokens_scored, manifest.tokens_prompted, manifest.tokens_generated, manifest.seconds
        )
        yield f"the run: {cost_text(spent)}"
    for role, use in manifest.pools.items():
        yield f"{in_line(role)}: replicas lost {use.lost}, calls retried {use.retries}"


def _table(*titles: str) -> Table:
    """A table whose columns of numbers, recognised by their titles, are right-aligned."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    numbers = {"round", "loss", "before", "after", "acc. %", "change"}
    for title in titles:
        table.add_column(title, justify="right" if title in numbers else "left")
    return table
