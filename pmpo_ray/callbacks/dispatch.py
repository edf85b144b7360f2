"""Callbacks and their dispatch: how a run reports its progress to trackers and user-defined callbacks.

Invariants:
- Callbacks are called in the order of the events, one at a time, in one thread besides the driver's: a slow
  callback does not delay the run.
- No callback ends a run: one that raises is named in a warning and not called again.
- A run that reported its start to its callbacks also reports its end to them, however it ends.
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
from pmpo_ray.outcomes import TaskFailure, TaskResult
from pmpo_ray.types import EngineInfo, RoundRecord

if TYPE_CHECKING:
    from pmpo_ray.result import RunResult

FLUSH_SECONDS = 60.0
"""Time that the end of a run waits for outstanding calls."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunStart:
    """A run whose models are loaded. `id` stays the same when the run is continued. `resumed` maps every task
    with stored rounds to their number, which is also the number of the next round (rounds count from 0); it
    is empty for a new run."""

    id: str
    run_dir: str
    config: RunConfig
    tasks: tuple[str, ...]
    scorer: EngineInfo
    rewriter: EngineInfo
    resumed: Mapping[str, int]


class Callback(Protocol):
    """Base of all callbacks. Subclass it and override what you need: by default every method does nothing.

    The methods are called in a separate thread, one at a time. `on_run_start` comes first and `on_run_end`
    last; a run that fails before its models are loaded makes no call at all.
    """

    def on_run_start(self, run: RunStart) -> None:
        """The run starts or continues."""

    def on_round(self, record: RoundRecord) -> None:
        """A round of a task is finished and stored. Rounds come in order within a task, in any order between
        tasks. Rounds stored by an earlier process are not reported again; neither is a round that was stored
        right before an interruption. The candidates have their batch losses; losses and scores per example
        are only in the run folder."""

    def on_task_end(self, result: TaskResult) -> None:
        """A task is finished and evaluated. A continued run reports its finished tasks once more."""

    def on_task_failed(self, failure: TaskFailure) -> None:
        """A task failed without a result; the other tasks continue."""

    def on_run_end(self, result: RunResult, finished: bool) -> None:
        """The run ends with these results. `finished` is False if an interruption or an error ended it before
        every task had a result or a failure; such a run can be continued."""


@contextmanager
def dispatching(callbacks: Sequence[Callback], patience: float = FLUSH_SECONDS) -> Iterator[Callback]:
    """Yield a callback that passes every call on to `callbacks`, without making the caller wait.

    The end of the block waits up to `patience` seconds for outstanding calls; then it names the remaining
    ones in a warning and gives them up.
    """
    dispatcher = _Dispatcher(callbacks)
    try:
        yield dispatcher
    finally:
        dispatcher.close(patience)


@dataclass(frozen=True, slots=True)
class _Event:
    """The name of a callback method, and the call of it with the arguments of this event."""

    method: str
    call: Callable[[Callback], None]


class _Dispatcher(Callback):
    """A callback that turns every call into an event, which a worker thread passes on."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = list(callbacks)
        self._events: SimpleQueue[_Event | None] = SimpleQueue()
        # The methods of all outstanding events, including the one that is being passed on.
        self._outstanding: deque[str] = deque()
        self._current = ""
        self._started = False
        self._given_up = False
        # A daemon, so that a callback that hangs does not keep the process from ending.
        self._worker = threading.Thread(target=self._work, name="pmpo-callbacks", daemon=True)
        self._worker.start()

    def on_run_start(self, run: RunStart) -> None:
        self._started = True
        self._put("on_run_start", lambda callback: callback.on_run_start(run))

    def on_round(self, record: RoundRecord) -> None:
        # Many records may wait for a slow callback, and scores per example are most of their size.
        slim = record.slim()
        self._put("on_round", lambda callback: callback.on_round(slim))

    def on_task_end(self, result: TaskResult) -> None:
        self._put("on_task_end", lambda callback: callback.on_task_end(result))

    def on_task_failed(self, failure: TaskFailure) -> None:
        self._put("on_task_failed", lambda callback: callback.on_task_failed(failure))

    def on_run_end(self, result: RunResult, finished: bool) -> None:
        if self._started:
            self._put("on_run_end", lambda callback: callback.on_run_end(result, finished))

    def close(self, patience: float) -> None:
        """Wait up to `patience` seconds for outstanding calls, and give up the rest."""
        self._events.put(None)
        try:
            self._worker.join(patience)
        finally:  # a second Ctrl-C also ends the wait
            self._given_up = True
            if lost := Counter(self._outstanding.copy()):
                calls = ", ".join(f"{method} ({count})" for method, count in lost.items())
                _log.warning(
                    "%s was still running at the end of the run; calls not made or not finished: %s",
                    self._current or "a callback",
                    calls,
                )

    def _put(self, method: str, call: Callable[[Callback], None]) -> None:
        self._outstanding.append(method)
        self._events.put(_Event(method, call))

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            for callback in tuple(self._callbacks):
                if self._given_up:
                    return
                self._pass_on(event, callback)
            self._outstanding.popleft()

    def _pass_on(self, event: _Event, callback: Callback) -> None:
        name = f"callback {type(callback).__name__}"
        self._current = f"{name}: {event.method}"
        try:
            event.call(callback)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code may raise anything
            # By identity: a callback may define itself as equal to another.
            self._callbacks = [other for other in self._callbacks if other is not callback]
            kind = type(error).__name__
            _log.warning("%s is not called any more: %s raised %s: %s", name, event.method, kind, error)
            _log.debug("%s: %s", name, event.method, exc_info=error)
