"""The counts of the work that was asked for and is done, for whoever shows progress.

Invariants: the counts never change what is computed; work that is asked for while none is outstanding begins
a new count; outside of `counting` nothing is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Report = Callable[[int, int], None]
"""A function of the numbers of parts that are done, and that were asked for."""


class _Count:
    def __init__(self, report: Report) -> None:
        self._report = report
        self._asked = 0
        self._done = 0

    def add(self, *, asked: int = 0, done: int = 0) -> None:
        if self._done >= self._asked:
            self._asked = self._done = 0
        self._asked += asked
        self._done += done
        self._report(self._done, self._asked)


_count: ContextVar[_Count | None] = ContextVar("count", default=None)


@contextmanager
def counting(report: Report) -> Iterator[None]:
    """Report the counts of all work that is asked for within the block, in this task and those it starts."""
    token = _count.set(_Count(report))
    try:
        yield
    finally:
        _count.reset(token)


@contextmanager
def counted(parts: int) -> Iterator[Callable[[int], None]]:
    """Count `parts` as asked for, and what the yielded function is called with as done. Parts that are not
    done at the end of the block, because of an error, no longer count."""
    count = _count.get()
    if count is None:
        yield lambda _: None
        return
    left = parts
    count.add(asked=parts)

    def done(number: int) -> None:
        nonlocal left
        left -= number
        count.add(done=number)

    try:
        yield done
    finally:
        if left:
            count.add(asked=-left)
