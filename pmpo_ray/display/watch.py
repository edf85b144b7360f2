"""What a log of progress has to say: the changes, and a sign of life when nothing has changed for long.

Invariants: only the call of `changed` and `overdue` touches the state, under a lock, because signs of life
come from a thread of their own; time comes from `clock`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pmpo_ray.outcomes import Progress

SILENCE_SECONDS = 30.0
"""The longest silence of a log while a run is at work."""
_BEFORE_TASKS = "preparing the tasks"
_BEFORE_WORK = "starting Ray and the models"
_IDLE = ("waiting", "done", "failed")


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life. `progress` is the task that has been in its state for the longest time, None before any
    task is at work; `phase` is the state, `seconds` its time so far, `others` the number of other tasks at
    work."""

    progress: Progress | None
    phase: str
    seconds: float
    others: int = 0


class Watch:
    """Watches the progress of all tasks for one log."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, silence: float = SILENCE_SECONDS) -> None:
        self._clock = clock
        self._silence = silence
        self._lock = threading.Lock()
        self._said_at = self._began = clock()
        self._tasks: dict[str, tuple[Progress, float]] = {}

    def changed(self, progress: Progress) -> bool:
        """Record the progress of a task. True if its state, round or note has changed, which the log says."""
        with self._lock:
            now, known = self._clock(), self._tasks.get(progress.task)
            if known is not None and _point(known[0]) == _point(progress):
                self._tasks[progress.task] = (progress, known[1])
                return False
            self._tasks[progress.task] = (progress, now)
            self._said_at = now
            return True

    def overdue(self) -> Beat | None:
        """A sign of life, if the log has said nothing for so long; the next one comes after the same time."""
        with self._lock:
            now = self._clock()
            if now - self._said_at < self._silence:
                return None
            self._said_at = now
            if not self._tasks:
                return Beat(None, _BEFORE_TASKS, now - self._began)
            at_work = [item for item in self._tasks.values() if item[0].state not in _IDLE]
            if at_work:
                progress, since = min(at_work, key=lambda item: item[1])
                return Beat(progress, progress.state, now - since, len(at_work) - 1)
            waiting = [since for progress, since in self._tasks.values() if progress.state == "waiting"]
            return Beat(None, _BEFORE_WORK, now - min(waiting)) if waiting else None


@contextmanager
def beating(beat: Callable[[], None], every: float = 1.0) -> Iterator[None]:
    """Call `beat` every so many seconds, in a thread, until the block ends."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(every):
            beat()

    thread = threading.Thread(target=work, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _point(progress: Progress) -> tuple[str, int, str]:
    return progress.state, progress.round, progress.note
