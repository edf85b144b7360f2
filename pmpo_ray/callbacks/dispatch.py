"""What a run tells those who follow it: the trackers, and callbacks of the user's own.

Invariants:
- Calls are made in the order of the events, one at a time, in one thread that is not the driver's: whoever
  follows a run may be slow without holding it up.
- No callback ends a run: one that raises is named in a warning and not called again.
- A run that began for its callbacks also ends for them, however it ends.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from pmpo_ray.config.run import RunConfig
from pmpo_ray.types import EngineInfo, RoundRecord, TaskFailure, TaskResult

if TYPE_CHECKING:
    from pmpo_ray.result import RunResult

FLUSH_SECONDS = 60.0
"""How long the end of a run waits for calls that are still to be made."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunStart:
    """A run whose models are loaded. `id` stays the same whenever the run is continued. `resumed` holds, for
    every task with stored rounds, their number, which is also the number of the round that comes next
    (rounds count from 0); it is empty for a run that begins."""

    id: str
    run_dir: str
    config: RunConfig
    tasks: tuple[str, ...]
    scorer: EngineInfo
    rewriter: EngineInfo
    resumed: Mapping[str, int]


class Callback(Protocol):
    """Follows a run. Subclass it and override what you need: every method does nothing by itself.

    The methods are called in a thread of their own, one at a time. `on_run_start` comes first and
    `on_run_end` last; a run that fails before its models are loaded makes no call at all.
    """

    def on_run_start(self, run: RunStart) -> None:
        """The run begins, or goes on."""

    def on_round(self, record: RoundRecord) -> None:
        """A round of a task is finished and stored; in order within a task, in any order between tasks.
        Rounds that an earlier process stored are not told again, nor is the one that an interruption came
        behind. The candidates come with their batch losses; losses and scores by example are in the run
        folder alone."""

    def on_task_end(self, result: TaskResult) -> None:
        """A task is finished and evaluated. A continued run tells its finished tasks once more."""

    def on_task_failed(self, failure: TaskFailure) -> None:
        """A task came to no result; the others go on."""

    def on_run_end(self, result: RunResult, finished: bool) -> None:
        """The run ends with these results. `finished` is False where it was interrupted or an error ended it
        before all tasks had a result or a failure; it can be continued then."""


@contextmanager
def dispatching(callbacks: Sequence[Callback], patience: float = FLUSH_SECONDS) -> Iterator[Callback]:
    """What is told to the yielded callback is passed on to `callbacks`, without a wait for whoever tells it.

    The end of the block waits up to `patience` seconds until all calls are made; those that were not are
    named in a warning and given up.
    """
    dispatcher = _Dispatcher(callbacks)
    try:
        yield dispatcher
    finally:
        dispatcher.close(patience)


@dataclass(frozen=True, slots=True)
class _Event:
    """A method of callbacks, and its call with this event's arguments."""

    method: str
    call: Callable[[Callback], None]


class _Dispatcher(Callback):
    """Every call of it becomes an event that a worker thread passes on."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = list(callbacks)
        self._events: SimpleQueue[_Event | None] = SimpleQueue()
        # The methods of all events that are not passed on yet, that at work included.
        self._open: deque[str] = deque()
        self._at_work = ""
        self._begun = False
        self._given_up = False
        # A daemon: a callback that hangs must not keep the process from ending.
        self._worker = threading.Thread(target=self._work, name="pmpo-callbacks", daemon=True)
        self._worker.start()

    def on_run_start(self, run: RunStart) -> None:
        self._begun = True
        self._put("on_run_start", lambda callback: callback.on_run_start(run))

    def on_round(self, record: RoundRecord) -> None:
        # Many records may wait for a slow callback, and scores by example are most of their size.
        slim = record.slim()
        self._put("on_round", lambda callback: callback.on_round(slim))

    def on_task_end(self, result: TaskResult) -> None:
        self._put("on_task_end", lambda callback: callback.on_task_end(result))

    def on_task_failed(self, failure: TaskFailure) -> None:
        self._put("on_task_failed", lambda callback: callback.on_task_failed(failure))

    def on_run_end(self, result: RunResult, finished: bool) -> None:
        if self._begun:
            self._put("on_run_end", lambda callback: callback.on_run_end(result, finished))

    def close(self, patience: float) -> None:
        """Wait up to `patience` seconds for the calls that are still to be made, and give up the others."""
        self._events.put(None)
        try:
            self._worker.join(patience)
        finally:  # a second Ctrl-C ends the wait, too
            self._given_up = True
            if lost := Counter(self._open.copy()):
                calls = ", ".join(f"{method} ({count})" for method, count in lost.items())
                _log.warning(
                    "%s was still at work at the end of the run; calls not made or not finished: %s",
                    self._at_work or "a callback",
                    calls,
                )

    def _put(self, method: str, call: Callable[[Callback], None]) -> None:
        self._open.append(method)
        self._events.put(_Event(method, call))

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            for callback in tuple(self._callbacks):
                if self._given_up:
                    return
                self._pass_on(event, callback)
            self._open.popleft()

    def _pass_on(self, event: _Event, callback: Callback) -> None:
        name = f"callback {type(callback).__name__}"
        self._at_work = f"{name}: {event.method}"
        try:
            event.call(callback)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code may raise anything
            # By identity: a callback may call itself equal to another.
            self._callbacks = [other for other in self._callbacks if other is not callback]
            kind = type(error).__name__
            _log.warning("%s is not called any more: %s raised %s: %s", name, event.method, kind, error)
            _log.debug("%s: %s", name, event.method, exc_info=error)
