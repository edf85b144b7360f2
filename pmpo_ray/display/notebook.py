"""A run in a notebook: its progress, and its result as a table.

Invariants: texts from models and data are escaped, and hidden characters are written out; a call of the
observer only records the change, and drawing happens at a bounded rate.
"""

from __future__ import annotations

import html
import io
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console

from pmpo_ray.display.demonstrations import demonstrations_words
from pmpo_ray.display.live import progress_table
from pmpo_ray.display.numbers import accuracy_text
from pmpo_ray.outcomes import Progress, TaskFailure, TaskResult
from pmpo_ray.text import visible

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

_WIDTH, _HEIGHT = 110, 60
"""Characters and lines of the progress table; a notebook does not report its size."""
_SECONDS = 0.25
_PRE = "<pre style='line-height:1.3;overflow-x:auto'>{code}</pre>"
_TEXT = "text-align:left;white-space:pre-wrap;overflow-wrap:anywhere;max-width:40em"
_TITLES = ("task", "instruction before", "instruction after", "training loss", "held-out accuracy")

Show = Callable[[str], None]
"""Shows a piece of HTML in place of the previous one."""


class NotebookTable:
    """An observer that shows a table with a row per task below the notebook's cell, through `show`.

    A context manager: the table is drawn from the first change, at most four times a second, and once more at
    exit.
    """

    def __init__(self, show: Show) -> None:
        self._show = show
        self._tasks: dict[str, Progress] = {}
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._drawing = threading.Thread(target=self._keep_drawing, name="notebook", daemon=True)

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            self._tasks[progress.task] = progress
        self._changed.set()

    def __enter__(self) -> NotebookTable:
        self._drawing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._drawing.join()
        self._draw()

    def _keep_drawing(self) -> None:
        while not self._ended.wait(_SECONDS):
            self._draw()

    def _draw(self) -> None:
        if not self._changed.is_set():
            return
        self._changed.clear()
        with self._lock:
            tasks = list(self._tasks.values())
        console = Console(file=io.StringIO(), record=True, width=_WIDTH, force_jupyter=False)
        console.print(progress_table(tasks, _WIDTH, _HEIGHT))
        self._show(console.export_html(inline_styles=True, code_format=_PRE))


class CellOutput:
    """Shows HTML below the notebook's cell that is running at the first call."""

    def __init__(self) -> None:
        self._handle: DisplayHandle | None = None

    def __call__(self, page: str) -> None:
        from IPython.display import HTML, DisplayHandle

        if self._handle is None:
            self._handle = DisplayHandle()
            self._handle.display(HTML(page))
        else:
            self._handle.update(HTML(page))


def result_html(results: Sequence[TaskResult], failed: Sequence[TaskFailure], run_dir: str) -> str:
    """The result of a run as an HTML table with a row per task."""
    head = "".join(f"<th style='text-align:left'>{title}</th>" for title in _TITLES)
    rows = "".join(map(_row, results)) + "".join(map(_failed_row, failed))
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"<div>run folder: <code>{_escaped(run_dir)}</code></div>"
    )


def _row(result: TaskResult) -> str:
    best = _escaped(result.best) if result.best != result.start else "<i>unchanged</i>"
    if result.shots:
        rows = "".join(
            f"<li>{_escaped(shot.input)} → <b>{_escaped(shot.target)}</b></li>" for shot in result.shots
        )
        words = demonstrations_words(len(result.shots))
        best += f"<details><summary>with {words}</summary><ol>{rows}</ol></details>"
    return (
        f"<tr><td>{_escaped(result.task)}</td><td style='{_TEXT}'>{_escaped(result.start)}</td>"
        f"<td style='{_TEXT}'>{best}</td><td>{result.loss_before:.3f} → {result.loss_after:.3f}</td>"
        f"<td>{_accuracies(result)}</td></tr>"
    )


def _accuracies(result: TaskResult) -> str:
    before, after = result.accuracy_before, result.accuracy_after
    if before is None or after is None:
        return "not evaluated"
    plain = f"{accuracy_text(before)} → {accuracy_text(after)}"
    if result.labels_before is None or result.labels_after is None:
        return plain
    balanced = result.labels_before.balanced, result.labels_after.balanced
    return f"{plain}<br>balanced {accuracy_text(balanced[0])} → {accuracy_text(balanced[1])}"


def _failed_row(failure: TaskFailure) -> str:
    return (
        f"<tr><td>{_escaped(failure.task)}</td>"
        f"<td colspan='4' style='{_TEXT}'>failed: {_escaped(failure.reason)}</td></tr>"
    )


def _escaped(text: str) -> str:
    return html.escape(visible(text))
