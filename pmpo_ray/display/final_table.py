"""What a run looks like on a terminal: progress while it works, the result at its end.

Invariants: texts from models and data are shown, never interpreted (no markup, no escape sequences, no text
direction tricks); progress goes only to the stream it was given; a call of an observer only notes the change,
drawing happens at a bounded rate.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import TracebackType
from typing import TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pmpo_ray.evaluation.statistics import LEVEL, holm
from pmpo_ray.text import in_line, shortened, visible
from pmpo_ray.types import Interval, Progress, TaskFailure, TaskResult

_BARS = "▁▂▃▄▅▆▇█"
_TREND = 10
"""Characters of a spark line in the live table."""
_EXCERPT = 240
"""Characters of an instruction that the table of many tasks shows."""
_STYLES = {"waiting": "dim", "done": "green", "failed": "red"}
_NUMBERS = 52
"""Columns that the live table needs beside the task names."""


def spark(losses: Sequence[float], width: int = _TREND) -> str:
    """Losses as a line of bars, lowest to highest over the range seen; at most `width` characters, picked
    evenly with the first and the last among them. A loss that is not finite shows as a dot."""
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


class LiveTable:
    """An observer that keeps a table with a row a task on the terminal behind `console`.

    A context manager: the table is drawn from the first task at work until exit, four times a second at
    most, and stays as it was last. Until then the terminal is left to others, such as the bar of a model's
    download. Where the terminal has fewer lines than there are tasks, those at work come first.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._tasks: dict[str, Progress] = {}
        self._live = Live(get_renderable=self.render, console=console, refresh_per_second=4)

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            first = not self._tasks
            self._tasks[progress.task] = progress
        if first:
            self._console.print(Text("starting Ray and the models", style="dim"))
        if progress.state != "waiting" and not self._live.is_started:
            self._live.start()

    def __enter__(self) -> LiveTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def render(self) -> RenderableType:
        """The table of the changes noted so far."""
        with self._lock:
            tasks = list(self._tasks.values())
        return progress_table(tasks, self._console.width, self._console.height)


def progress_table(tasks: Sequence[Progress], width: int, height: int) -> RenderableType:
    """Where every task stands, in at most `height` lines of `width` characters."""
    room = max(3, height - 7)
    shown = tasks
    if len(tasks) > room:
        rank = {"waiting": 1, "failed": 2, "done": 3}
        shown = sorted(tasks, key=lambda task: rank.get(task.state, 0))[:room]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for title in ("task", "state"):
        table.add_column(title, no_wrap=True)
    for title in ("round", "loss"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("trend", no_wrap=True, min_width=_TREND)
    for title in ("scored", "gener."):
        table.add_column(title, justify="right", no_wrap=True, min_width=6)
    for task in shown:
        table.add_row(*_live_row(task, max(12, width - _NUMBERS)))
    notes = [_note(task) for task in tasks if task.note][-3:]
    return Group(table, *notes, *_left_out(tasks, len(shown)))


def _live_row(task: Progress, width: int) -> list[Text]:
    return [
        Text(shortened(in_line(task.task), width)),
        Text(task.state, style=_STYLES.get(task.state, "cyan")),
        Text(f"{task.round}/{task.rounds}"),
        Text(loss_text(min(task.losses)) if task.losses else "–"),
        Text(spark(task.losses), style="cyan"),
        Text(amount(task.tokens_scored)),
        Text(amount(task.tokens_generated)),
    ]


def _note(task: Progress) -> Text:
    return Text(
        f"{in_line(task.task)}: {in_line(task.note)}", style="yellow", no_wrap=True, overflow="ellipsis"
    )


def _left_out(tasks: Sequence[Progress], shown: int) -> list[Text]:
    if shown == len(tasks):
        return []
    states = [task.state for task in tasks]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return [Text(f"{shown} of {len(tasks)} tasks shown; in all {counts}", style="dim")]


class PlainLog:
    """An observer that writes one line to `stream` whenever a task's state, round or note changes.

    Lines begin with the seconds since the log was made, by `clock`. When nobody reads the stream any more,
    the log goes quiet: a run is worth more than its progress.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._start = clock()
        self._last: dict[str, tuple[str, int, str]] = {}
        self._quiet = False

    def __call__(self, progress: Progress) -> None:
        now = (progress.state, progress.round, progress.note)
        if self._quiet or self._last.get(progress.task) == now:
            return
        self._last[progress.task] = now
        loss = f"  loss {loss_text(min(progress.losses))}" if progress.losses else ""
        note = f"  {in_line(progress.note)}" if progress.note else ""
        line = (
            f"[{self._clock() - self._start:6.0f}s] {in_line(progress.task)}  "
            f"round {progress.round}/{progress.rounds}  {progress.state}{loss}  "
            f"{amount(progress.tokens_scored)} scored  {amount(progress.tokens_generated)} generated{note}"
        )
        try:
            print(line, file=self._stream, flush=True)
        except BrokenPipeError:
            self._quiet = True


@dataclass(frozen=True, slots=True)
class FinalTable:
    """What a run came to: a page for one task, else the instructions, a row a task, and the mean."""

    results: Sequence[TaskResult]
    run_dir: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _final(self.results, options.max_width)
        yield Text(f"run folder: {in_line(self.run_dir)}", overflow="fold")


def final_table(results: Sequence[TaskResult], run_dir: str, console: Console) -> None:
    """Print a `FinalTable`, the path of the run folder on one line however long it is."""
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
        scored = amount(sum(result.tokens_scored for result in results))
        generated = amount(sum(result.tokens_generated for result in results))
        yield Text(f"all tasks: {scored} tokens scored, {generated} generated")


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
    spent = (
        f"{result.rounds} rounds (stopped by: {in_line(result.stopped)}), {result.seconds:.0f} s, "
        f"{amount(result.tokens_scored)} tokens scored, {amount(result.tokens_generated)} generated"
    )
    tested = result.accuracy_after or result.accuracy_before
    basis = f"accuracy with its 95% interval on {tested.n} held-out examples" if tested else ""
    if result.p_value is not None:
        verdict = "significant" if result.p_value < LEVEL else "NOT significant"
        basis += f"; the difference is {verdict} ({p_value_text(result.p_value)})"
    return Group(
        Rule(Text(in_line(result.task), style="bold"), align="left"),
        Text("instruction before", style="dim"),
        Text(visible(result.start)),
        Text(),
        Text("instruction after" + (" (unchanged)" if result.best == result.start else ""), style="dim"),
        Text(visible(result.best), style="bold"),
        Text(),
        facts,
        Text(basis, style="dim"),
        Text(spent),
    )


def _many_tasks(results: Sequence[TaskResult], width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True, footer=Text("mean"))
    for title in ("loss", "after", "acc. %", "after", "scored", "gener.", "sec."):
        table.add_column(title, justify="right", no_wrap=True)
    better_or_worse = significant(results)
    for result in results:
        table.add_row(
            Text(shortened(in_line(result.task), max(12, width - 63))),
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
    table.caption = Text(
        "acc.: held-out accuracy with its 95% interval; *: significantly different (corrected for the number "
        "of tasks)",
        style="dim",
    )
    table.caption_justify = "left"
    return table


def significant(results: Sequence[TaskResult]) -> set[str]:
    """The tasks whose accuracy changed significantly, their number allowed for."""
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
    """The instructions of many tasks; a start that all of them share stands once, at the top."""
    starts = {result.start for result in results}
    table = Table(box=None, padding=(0, 2, 1, 0), pad_edge=False, header_style="bold")
    table.add_column("task", max_width=26)
    table.add_column("instruction after" if len(starts) == 1 else "instruction before and after")
    for result in results:
        after = "(unchanged)" if result.best == result.start else _excerpt(result.best)
        before = "" if len(starts) == 1 else f"before: {_excerpt(result.start)}\nafter: "
        cell = Text.assemble((before, "dim"), after)
        table.add_row(Text(in_line(result.task), overflow="fold"), cell)
    table.caption = Text(f"Texts over {_EXCERPT} characters are cut; best.json has them whole.", style="dim")
    table.caption_justify = "left"
    if len(starts) > 1:
        return table
    return Group(
        Text("instruction before, every task", style="bold"), Text(_excerpt(starts.pop())), Text(), table
    )


def _excerpt(text: str) -> str:
    shown = in_line(text)
    return shown if len(shown) <= _EXCERPT else f"{shown[: _EXCERPT - 1]}…"


def loss_text(loss: float) -> str:
    """A loss as tables show it."""
    return f"{loss:.3f}" if math.isfinite(loss) else "–"


def p_value_text(value: float) -> str:
    """As in a sentence: "p = 0.012", or "p < 0.001"."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def accuracy_text(interval: Interval | None) -> str:
    """An accuracy with its interval, where there is room for it."""
    if interval is None:
        return "not evaluated"
    return f"{interval.value * 100:.1f}% [{interval.low * 100:.1f}, {interval.high * 100:.1f}]"


def percent_text(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    ends = f"[{interval.low * 100:.0f},{interval.high * 100:.0f}]"
    return f"{interval.value * 100:.1f} {ends:8}"


def result_json(
    results: Sequence[TaskResult], run_dir: str, failed: Sequence[TaskFailure] = ()
) -> dict[str, object]:
    """What `pmpo optimize --json` prints. Losses in nats, accuracies from 0 to 1, tokens, seconds; null
    where a number does not exist. `failed` lists the tasks that came to no result."""
    return {
        "run_dir": run_dir,
        "tasks": [_task_json(result) for result in results],
        "failed": [{"task": failure.task, "reason": failure.reason} for failure in failed],
    }


def _task_json(result: TaskResult) -> dict[str, object]:
    before, after = result.accuracy_before, result.accuracy_after
    tested = after or before
    return {
        "task": result.task,
        "rounds": result.rounds,
        "loss_before": json_number(result.loss_before),
        "loss_after": json_number(result.loss_after),
        "accuracy_before": None if before is None else before.value,
        "accuracy_after": None if after is None else after.value,
        "p_value": result.p_value,
        "n_test": 0 if tested is None else tested.n,
        "tokens_scored": result.tokens_scored,
        "tokens_generated": result.tokens_generated,
        "seconds": result.seconds,
        "best": result.best,
    }


def json_number(value: float) -> float | None:
    """A number for JSON, which has none that is not finite."""
    return value if math.isfinite(value) else None
