"""Running asynchronous work to its end from synchronous code, whatever that runs in.

Invariant: as with `asyncio.run`, the work is over when the call returns, also after Ctrl-C and SIGTERM, which
cancel it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
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
        return _in_this_thread(work)
    return _in_thread(work)


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM, by which schedulers end jobs, raises KeyboardInterrupt here as Ctrl-C does, even where that
    is ignored, as shells have it for jobs in the background."""
    with _on_sigterm(_interrupt):
        yield


def _interrupt() -> None:
    raise KeyboardInterrupt


@contextmanager
def _on_sigterm(action: Callable[[], None]) -> Iterator[None]:
    """SIGTERM does `action` meanwhile. Only the main thread can take signals: elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_this_thread(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run(work)`, with SIGTERM cancelling the work as Ctrl-C does there: an error raised wherever
    the loop happens to be would tear it apart between two steps that belong together."""
    cancelled = False

    async def main() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def cancel() -> None:
            nonlocal cancelled
            if cancelled or task is None:
                raise KeyboardInterrupt
            cancelled = True
            loop.call_soon_threadsafe(task.cancel)  # which also wakes a loop that waits

        with _on_sigterm(cancel):
            return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if cancelled:
            raise KeyboardInterrupt from None
        raise


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
