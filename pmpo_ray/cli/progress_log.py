"""The progress of a run on standard error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pmpo_ray.cli.log_lines import LogFormat
from pmpo_ray.display.progress import progress_display
from pmpo_ray.protocols import Observer
from pmpo_ray.types import Progress


class JsonProgress:
    """An observer that logs every change of a task's state, round or note."""

    def __init__(self) -> None:
        self._log = logging.getLogger("pmpo_ray.progress")
        self._last: dict[str, tuple[str, int, str]] = {}

    def __call__(self, progress: Progress) -> None:
        now = (progress.state, progress.round, progress.note)
        if self._last.get(progress.task) == now:
            return
        self._last[progress.task] = now
        fields = {
            "task": progress.task,
            "state": progress.state,
            "round": progress.round,
            "rounds": progress.rounds,
            "loss": min(progress.losses, default=None),
            "tokens_scored": progress.tokens_scored,
            "tokens_generated": progress.tokens_generated,
            **({"note": progress.note} if progress.note else {}),
        }
        level = logging.ERROR if progress.state == "failed" else logging.INFO
        self._log.log(level, "progress", extra={"fields": fields})


@contextmanager
def progress_log(log_format: LogFormat) -> Iterator[Observer]:
    """An observer that reports progress on standard error: live in text, as log records in JSON."""
    if log_format == "json":
        yield JsonProgress()
        return
    with progress_display() as display:
        yield display
