"""Questions whose answer may never come, such as those to a server or a driver, each in a process of its own.

Invariant: waiting is bounded, whatever the one asked does; what does not answer in time is ended.
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
"""For a process to start and load its modules, which a busy machine may take long for."""


class UnansweredError(Exception):
    """There was no answer, and why."""


class Question(Generic[T]):
    """`function(*arguments)`, at work from now on in another process.

    It has `seconds` from when the process has loaded the modules called `needs`, so that a busy machine is
    not taken for one that does not answer. The function must be importable by name, and its arguments and
    answer picklable. What it prints goes to standard error. Errors that it expects are part of its answer.
    """

    def __init__(
        self, function: Callable[..., T], *arguments: object, seconds: float, needs: Sequence[str] = ()
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._answers, sending = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_reply, args=(sending, tuple(needs), function, arguments), daemon=True
        )
        self._process.start()
        # The other end is then the process's alone, and closed with it.
        sending.close()
        self._seconds = seconds
        self._started = time.monotonic()

    def answer(self) -> T:
        """The answer. Raises UnansweredError where none came in time, or the process ended without one."""
        try:
            ready: float = self._next(self._started, STARTING_SECONDS)
            found: T = self._next(ready, self._seconds)
        except EOFError:
            self._process.join()
            raise UnansweredError(f"the check ended with exit code {self._process.exitcode}") from None
        finally:
            self._process.kill()
        return found

    def _next(self, since: float, seconds: float) -> Any:
        """What the process sends next: when it was ready, then the answer."""
        if not self._answers.poll(max(0.0, since + seconds - time.monotonic())):
            raise UnansweredError(f"no answer within {seconds:g} s")
        return self._answers.recv()


def _reply(
    answers: Connection,
    needs: tuple[str, ...],
    function: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    os.dup2(2, 1)
    # Where a module is missing or broken, it is for the function to say so.
    with contextlib.suppress(ImportError, OSError):
        for name in needs:
            importlib.import_module(name)
    # This clock is the same for all processes of a machine.
    answers.send(time.monotonic())
    answers.send(function(*arguments))
