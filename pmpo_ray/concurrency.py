"""Asynchronous calls that succeed or fail as one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def gather_or_cancel(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all calls at once and return their results in order.

    If a call fails or the caller is cancelled, the remaining calls are cancelled and have ended before this
    function raises. Of several errors, the first is raised.
    """
    failure: BaseException | None = None
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks.extend(group.create_task(call) for call in calls)
    except BaseExceptionGroup as failures:
        failure = failures.exceptions[0]
    # Raised outside of the handler, so that the error keeps its cause and gets no new context.
    if failure is not None:
        raise failure
    return [task.result() for task in tasks]
