"""Asynchronous work run to its end from synchronous code, inside or outside of an event loop.

Invariant: as with `asyncio.run`, the work has ended when the call returns, also after Ctrl-C and SIGTERM,
which cancel it.
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
"""Time within which a thread starts, or never does."""


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run(work)`, also for a caller inside a running event loop, such as the cell of a notebook: the
    work then runs in a new loop in a new thread, and the caller waits."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _in_this_thread(work)
    return _in_thread(work)


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM, which schedulers send to end a job, raise KeyboardInterrupt as Ctrl-C does, even if Ctrl-C
    is ignored, as it is for background jobs of a shell."""
    with _on_sigterm(_interrupt):
        yield


def _interrupt() -> None:
    raise KeyboardInterrupt


@contextmanager
def _on_sigterm(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` on SIGTERM within the block. Only the main thread can handle signals: in any other thread
    nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_this_thread(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run(work)`, in which SIGTERM cancels the work as Ctrl-C does: an error raised at an arbitrary
    point of the loop could separate two steps that belong together."""
    cancelled = False

    async def main() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def cancel() -> None:
            nonlocal cancelled
            if cancelled or task is None:
                raise KeyboardInterrupt
            cancelled = True
            loop.call_soon_threadsafe(task.cancel)  # This also wakes a waiting loop.

        with _on_sigterm(cancel):
            return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if cancelled:
            raise KeyboardInterrupt from None
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
