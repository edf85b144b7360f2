"""The signals that end a run: Ctrl-C, SIGTERM as schedulers send it, and SIGHUP of a terminal that closes.

Invariants: each of them raises `Interrupted` in the main thread, and the first one counts; within `deferred`
none of them interrupts anything. A signal that was ignored at the start, as with nohup, stays ignored, except
SIGTERM. In any other thread than the main one nothing changes.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object]


class Interrupted(KeyboardInterrupt):
    """The end of a run by a signal. `run_dir` is the folder in which the run can be continued, empty if
    nothing was kept."""

    def __init__(self, number: int, run_dir: str = "") -> None:
        super().__init__(run_dir)
        self.number = number
        self.run_dir = run_dir


def number_of(interrupt: KeyboardInterrupt) -> int:
    """The number of the signal; that of Ctrl-C for an interrupt that names none."""
    return interrupt.number if isinstance(interrupt, Interrupted) else int(signal.SIGINT)


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let every ending signal raise Interrupted within the block."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise Interrupted(number)

    with handling(interrupt):
        yield


@contextmanager
def deferred() -> Iterator[list[int]]:
    """Note ending signals within the block, in the list that it gets, and raise the first one at its end,
    unless an exception ends the block."""
    noted: list[int] = []
    with handling(lambda number, _: noted.append(number)):
        yield noted
    if noted:
        raise Interrupted(noted[0])


@contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Call `handler` on every ending signal within the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for number in ENDING:
        present = signal.getsignal(number)
        if present is not signal.SIG_IGN or number == signal.SIGTERM:
            before[number] = present
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, present in before.items():
            # None: it was not set from Python.
            signal.signal(number, signal.SIG_DFL if present is None else present)


def ignore_signals() -> None:
    """Let no ending signal interrupt what is left of this process."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


_exit_handlers = [True]


def abandon_exit_handlers() -> None:
    """Note that the handlers which libraries registered for the end of this process would hang."""
    _exit_handlers.clear()


def leaves_at_once() -> bool:
    """True if this process has to end without its exit handlers: they would hang, or a thread would that is
    still at work."""
    return not _exit_handlers or any(
        not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()
    )
