"""The progress of a run on standard error."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pmpo_ray.cli.log_lines import LogFormat
from pmpo_ray.display.progress import progress_display
from pmpo_ray.display.watch import Watch, beating
from pmpo_ray.outcomes import Progress
from pmpo_ray.protocols import Observer


class JsonProgress:
    """An observer that logs every change of a task's state, round or note. `beat` logs a sign of life if
    there was no change for long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = logging.getLogger("pmpo_ray.progress")
        self._watch = Watch(clock)

    def __call__(self, progress: Progress) -> None:
        if not self._watch.changed(progress):
            return
        fields = {
            "task": progress.task,
            "state": progress.state,
            progress.unit: progress.round,
            f"{progress.unit}s": progress.rounds,
            "loss": min(progress.losses, default=None),
            "tokens_scored": progress.tokens_scored,
            "tokens_prompted": progress.tokens_prompted,
            "tokens_generated": progress.tokens_generated,
            **({"note": progress.note} if progress.note else {}),
        }
        level = logging.ERROR if progress.state == "failed" else logging.INFO
        self._log.log(level, "progress", extra={"fields": fields})

    def beat(self) -> None:
        """Log a sign of life, if it is time for one."""
        beat = self._watch.overdue()
        if beat is None:
            return
        fields: dict[str, object] = {"phase": beat.phase, "seconds": round(beat.seconds)}
        if beat.progress is not None:
            counts = {"done": beat.progress.done, "asked": beat.progress.asked} if beat.progress.asked else {}
            fields |= {"task": beat.progress.task, "others": beat.others, **counts}
        self._log.info("still at work", extra={"fields": fields})


@contextmanager
def progress_log(log_format: LogFormat) -> Iterator[Observer]:
    """An observer that reports progress on standard error: live in text, as log records in JSON."""
    if log_format == "json":
        log = JsonProgress()
        with beating(log.beat):
            yield log
        return
    with progress_display() as display:
        yield display
