"""Asynchronous work run to its end from synchronous code, inside or outside of an event loop.

Invariant: as with `asyncio.run`, the work has ended when the call returns, also after a signal, which cancels
it. A second signal does not wait for the end of the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import FrameType
from typing import Any, TypeVar

from pmpo_ray.signals import Interrupted, handling

T = TypeVar("T")

_START_SECONDS = 5.0
"""Time within which a thread starts, or never does."""


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run(work)`, also for a caller inside a running event loop, such as the cell of a notebook: the
    work then runs in a new loop in a new thread, and the caller waits."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _in_this_thread(work)
    return _in_thread(work)


def _in_this_thread(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run(work)`, in which every ending signal cancels the work as Ctrl-C does: an error raised at
    an arbitrary point of the loop could separate two steps that belong together."""
    first: list[int] = []

    async def main() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def cancel(number: int, _: FrameType | None) -> None:
            if first or task is None:
                raise Interrupted(number)
            first.append(number)
            loop.call_soon_threadsafe(task.cancel)  # This also wakes a waiting loop.

        with handling(cancel):
            return await work

    try:
        return asyncio.run(main())
    except (asyncio.CancelledError, KeyboardInterrupt):
        if first:
            raise Interrupted(first[0]) from None
        raise


def _in_thread(work: Coroutine[Any, Any, T]) -> T:
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()
    result: Future[T] = Future()

    async def run() -> T:
        task = asyncio.ensure_future(work)
        started.set_result((asyncio.get_running_loop(), task))
        return await task

    def main() -> None:
        try:
            result.set_result(asyncio.run(run()))
        except BaseException as error:  # noqa: BLE001 - raised again where the caller waits
            result.set_exception(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(main,), name="run")
    try:
        thread.start()
        return result.result()
    except KeyboardInterrupt:
        # It may arrive before the thread has started, or when its loop has just ended.
        with contextlib.suppress(TimeoutError, RuntimeError):
            loop, task = started.result(_START_SECONDS)
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        if thread.is_alive():
            thread.join()
