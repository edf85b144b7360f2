"""Running asynchronous work to its end from synchronous code, whatever that runs in.

Invariant: as with `asyncio.run`, the work is over when the call returns, also after Ctrl-C, which cancels it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_START_SECONDS = 5.0
"""A thread begins within this time, or not at all."""


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run(work)`, also for a caller within a running event loop, as the cells of a notebook are: the
    work then gets a loop and a thread of its own, and the caller waits."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    return _in_thread(work)


def _in_thread(work: Coroutine[Any, Any, T]) -> T:
    began: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()
    result: Future[T] = Future()

    async def run() -> T:
        task = asyncio.ensure_future(work)
        began.set_result((asyncio.get_running_loop(), task))
        return await task

    def main() -> None:
        try:
            result.set_result(asyncio.run(run()))
        except BaseException as error:  # noqa: BLE001 - it is raised again where the caller waits
            result.set_exception(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(main,), name="run")
    try:
        thread.start()
        return result.result()
    except KeyboardInterrupt:
        # It may come before the thread has begun, and when its loop has just ended.
        with contextlib.suppress(TimeoutError, RuntimeError):
            loop, task = began.result(_START_SECONDS)
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        if thread.is_alive():
            thread.join()
