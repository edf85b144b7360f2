"""Asynchronous work run to its end: outside and within an event loop, and when a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from pmpo_ray.runs.event_loop import run_to_end
from pmpo_ray.signals import ending_on_signals


async def answer(value: int) -> tuple[int, str]:
    await asyncio.sleep(0)
    if value < 0:
        raise ValueError(f"{value} is below 0")
    return value, threading.current_thread().name


def test_work_runs_to_its_end_outside_of_an_event_loop() -> None:
    assert run_to_end(answer(3)) == (3, threading.current_thread().name)


async def test_work_runs_to_its_end_within_an_event_loop() -> None:
    """As in the cell of a notebook, whose loop continues afterwards."""
    value, thread = run_to_end(answer(3))
    assert value == 3
    assert thread != threading.current_thread().name
    with pytest.raises(ValueError, match="-1 is below 0"):
        run_to_end(answer(-1))
    assert await answer(4) == (4, threading.current_thread().name)


def test_an_interrupt_ends_the_work_within_an_event_loop() -> None:
    """As the button of a notebook does: it comes to the thread that waits."""
    ended: list[str] = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("work")

    async def cell() -> None:
        run_to_end(work())

    with closing(asyncio.new_event_loop()) as loop, pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(cell())
    assert ended == ["work"]


@contextmanager
def ctrl_c_ignored() -> Iterator[None]:
    """As shells do for background jobs."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


async def interrupted(ended: list[str]) -> None:
    """Work that a scheduler ends within a step that must stay whole."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        ended.append("step")
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        ended.append("work")


@pytest.mark.parametrize("ignored", [False, True])
def test_sigterm_ends_the_work_between_two_of_its_steps(ignored: bool) -> None:
    ended: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with (
        ctrl_c_ignored() if ignored else contextlib.nullcontext(),
        ending_on_signals(),
        pytest.raises(KeyboardInterrupt),
    ):
        run_to_end(interrupted(ended))
    assert ended == ["step", "work"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_wakes_a_loop_that_waits() -> None:
    ended: list[str] = []

    async def work() -> None:
        killer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
        killer.start()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("work")

    with ctrl_c_ignored(), ending_on_signals(), pytest.raises(KeyboardInterrupt):
        run_to_end(work())
    assert ended == ["work"]


def test_sigterm_ends_what_comes_before_and_after_the_work() -> None:
    with ctrl_c_ignored(), ending_on_signals():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert run_to_end(answer(3))[0] == 3
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_sigterm_does_not_wait_for_the_work_to_end() -> None:
    async def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    with ending_on_signals(), pytest.raises(KeyboardInterrupt):
        run_to_end(work())


def test_sigterm_ends_work_within_an_event_loop() -> None:
    ended: list[str] = []

    async def cell() -> None:
        run_to_end(interrupted(ended))

    with (
        ending_on_signals(),
        closing(asyncio.new_event_loop()) as loop,
        pytest.raises(KeyboardInterrupt),
    ):
        loop.run_until_complete(cell())
    assert ended == ["step", "work"]


def test_work_that_is_cancelled_by_itself_was_not_interrupted() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with ending_on_signals(), pytest.raises(asyncio.CancelledError):
        run_to_end(work())
