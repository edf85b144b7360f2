"""Calls that may never return, such as those to a server or a driver, each in a process of its own.

Invariant: waiting is bounded, whatever the call does; a process that does not return in time is killed.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

T = TypeVar("T")
STARTING_SECONDS = 120.0
"""The time for a process to start and to import its modules, which can take long on a busy machine."""


class NoResultError(Exception):
    """A call returned no result; the text gives the reason."""


class BoundedCall(Generic[T]):
    """`function(*arguments)`, started in another process when this is created.

    The call has `seconds` from the moment at which the process has imported the modules in `imports`, so that
    a slow start does not count. The function must be importable by name, and its arguments and its result
    picklable. What it prints goes to standard error. Errors that it expects have to be part of its result.
    """

    def __init__(
        self, function: Callable[..., T], *arguments: object, seconds: float, imports: Sequence[str] = ()
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._results, sending = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_call, args=(sending, tuple(imports), function, arguments), daemon=True
        )
        self._process.start()
        # The other end then belongs to the process alone, and is closed with it.
        sending.close()
        self._seconds = seconds
        self._started = time.monotonic()

    def result(self) -> T:
        """Wait for the result. Raises NoResultError if none came in time or the process ended without one."""
        try:
            ready: float = self._next(self._started, STARTING_SECONDS)
            result: T = self._next(ready, self._seconds)
        except EOFError:
            self._process.join()
            raise NoResultError(f"the check ended with exit code {self._process.exitcode}") from None
        finally:
            self._process.kill()
        return result

    def _next(self, since: float, seconds: float) -> Any:
        """The next value that the process sends: the time at which it was ready, then the result."""
        if not self._results.poll(max(0.0, since + seconds - time.monotonic())):
            raise NoResultError(f"no answer within {seconds:g} s")
        return self._results.recv()


def _call(
    results: Connection,
    imports: tuple[str, ...],
    function: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    os.dup2(2, 1)
    # If a module is missing or broken, the function reports it.
    with contextlib.suppress(ImportError, OSError):
        for name in imports:
            importlib.import_module(name)
    # This clock is the same for all processes of a machine.
    results.send(time.monotonic())
    results.send(function(*arguments))
