"""The progress of a run: a live table on a terminal, lines elsewhere.

Invariants: texts from models and data are shown, never interpreted; a call of an observer only records the
change, and drawing happens at a bounded rate.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pmpo_ray.display.numbers import TREND_WIDTH, amount, loss_text, spark
from pmpo_ray.display.watch import Beat, Watch
from pmpo_ray.outcomes import Progress
from pmpo_ray.text import in_line, shortened_name

_STYLES = {"waiting": "dim", "done": "green", "failed": "red"}
_NUMBERS = 56
"""Columns of the live table next to the task names."""


class LiveTable:
    """An observer that shows a table with a row per task on the terminal of `console`.

    A context manager: the table is drawn from the moment that the first task works until exit, at most four
    times a second, and its last state stays. Before that, the terminal is free for others, such as the bar
    of a download. If the terminal has fewer lines than there are tasks, those at work come first.
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
        # The terminal may have been closed: no reason to end the run.
        with contextlib.suppress(OSError):
            if first:
                self._console.print(Text("starting Ray and the models", style="dim"))
            if progress.state != "waiting" and not self._live.is_started:
                self._live.start()

    def __enter__(self) -> LiveTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._live.stop()

    def render(self) -> RenderableType:
        """The table of the changes recorded so far."""
        with self._lock:
            tasks = list(self._tasks.values())
        return progress_table(tasks, self._console.width, self._console.height)


def progress_table(tasks: Sequence[Progress], width: int, height: int) -> RenderableType:
    """The state of every task, in at most `height` lines of `width` characters."""
    room = max(3, height - 7)
    shown = tasks
    if len(tasks) > room:
        rank = {"waiting": 1, "failed": 2, "done": 3}
        shown = sorted(tasks, key=lambda task: rank.get(task.state, 0))[:room]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for title in ("task", "state"):
        table.add_column(title, no_wrap=True)
    for title in (shown[0].unit if shown else "round", "loss"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("trend", no_wrap=True, min_width=TREND_WIDTH)
    for title in ("scored", "gener."):
        table.add_column(title, justify="right", no_wrap=True, min_width=6)
    for task in shown:
        table.add_row(*_live_row(task, max(12, width - _NUMBERS)))
    notes = [_note(task) for task in tasks if task.note][-3:]
    return Group(table, *notes, *_left_out(tasks, len(shown)))


def _live_row(task: Progress, width: int) -> list[Text]:
    return [
        Text(shortened_name(task.task, width)),
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
    return [Text(f"{shown} of {len(tasks)} tasks shown; in total {counts}", style="dim")]


class PlainLog:
    """An observer that writes a line to `stream` whenever a task's state, round or note changes. `beat`
    writes one if there was none for long.

    Lines begin with the seconds since the log was created, by `clock`. Once the stream cannot be written, the
    log writes nothing more: a run does not fail because of its progress.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._start = clock()
        self._watch = Watch(clock)
        self._quiet = False

    def __call__(self, progress: Progress) -> None:
        if not self._watch.changed(progress):
            return
        loss = f"  loss {loss_text(min(progress.losses))}" if progress.losses else ""
        note = f"  {in_line(progress.note)}" if progress.note else ""
        self._write(
            f"{_place(progress)}  {progress.state}{loss}  "
            f"{amount(progress.tokens_scored)} scored  {amount(progress.tokens_generated)} generated{note}"
        )

    def beat(self) -> None:
        """Write a sign of life, if it is time for one."""
        beat = self._watch.overdue()
        if beat is not None:
            self._write(beat_text(beat))

    def _write(self, text: str) -> None:
        if self._quiet:
            return
        try:
            print(f"[{self._clock() - self._start:6.0f}s] {text}", file=self._stream, flush=True)
        except OSError:
            # Its reader has gone, or its disk is full.
            self._quiet = True


def beat_text(beat: Beat) -> str:
    """A sign of life on one line."""
    if beat.progress is None:
        return f"{beat.phase} for {beat.seconds:.0f} s"
    progress = beat.progress
    parts = "requests" if progress.state in ("masking", "rewriting") else "examples"
    far = f": {progress.done:,} of {progress.asked:,} {parts} done" if progress.asked else ""
    more = f"  (and {beat.others} more at work)" if beat.others else ""
    return f"{_place(progress)}  {beat.phase} for {beat.seconds:.0f} s{far}{more}"


def _place(progress: Progress) -> str:
    return f"{in_line(progress.task)}  {progress.unit} {progress.round}/{progress.rounds}"
