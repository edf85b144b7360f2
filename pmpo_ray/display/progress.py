"""The choice of a progress display: on a terminal, in a notebook, or line by line.

Invariant: progress goes to standard error, or below the notebook's cell, and nowhere else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from pmpo_ray.display.live import LiveTable, PlainLog
from pmpo_ray.display.watch import beating
from pmpo_ray.protocols import Observer


@contextmanager
def progress_display(console: Console | None = None) -> Iterator[Observer]:
    """An observer that shows progress on `console` (None: standard error): a live table on a terminal, one
    below the cell in a notebook, else a plain log on standard error."""
    console = console or Console(stderr=True)
    if console.is_jupyter:
        from pmpo_ray.display.notebook import CellOutput, NotebookTable

        with NotebookTable(CellOutput()) as below:
            yield below
    elif console.is_terminal and not console.is_dumb_terminal:
        with LiveTable(console) as table:
            yield table
    else:
        log = PlainLog(sys.stderr)
        with beating(log.beat):
            yield log
