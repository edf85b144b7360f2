"""The thread in which Ray is started and ended.

Invariants: no signal interrupts a start or an end of Ray halfway, which would leave its processes behind; the
thread lives as long as Ray does, because the system ends Ray's processes with the thread that started them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from pmpo_ray.signals import deferred

T = TypeVar("T")

START_PATIENCE = 10.0
"""Seconds that a start of Ray may go on after a signal, before it is given up."""
END_PATIENCE = 10.0
"""Seconds that an end of Ray may take, before it is given up."""
_LOOK = 0.1


class RayThread:
    """Runs one function after the other. A daemon: a function that never returns does not keep the process
    from ending."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="ray", daemon=True).start()

    def start(self, function: Callable[[], T], patience: float = START_PATIENCE) -> T:
        """The result of `function`, which starts Ray. A signal is noted meanwhile, and raises Interrupted
        when the function has returned, or `patience` seconds later."""
        result = self._submit(function)
        with deferred() as noted:
            waited = 0.0
            while not result.done() and waited < patience:
                wait([result], _LOOK)
                waited += _LOOK if noted else 0.0
        return result.result()

    def end(self, function: Callable[[], object], patience: float = END_PATIENCE) -> bool:
        """Run `function`, which ends Ray, and then end this thread. False if that took longer than `patience`
        seconds."""
        result = self._submit(function)
        self._calls.put(None)
        waited = 0.0
        while not result.done() and waited < patience:
            wait([result], _LOOK)
            waited += _LOOK
        return result.done()

    def _submit(self, function: Callable[[], T]) -> Future[T]:
        result: Future[T] = Future()
        self._calls.put((function, result))
        return result

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            function, result = call
            try:
                result.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised again where the caller waits
                result.set_exception(error)
