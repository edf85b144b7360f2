"""Calls that succeed or fail as one."""

from __future__ import annotations

import asyncio

import pytest

from pmpo_ray.concurrency import gather_or_cancel


async def value(number: int) -> int:
    await asyncio.sleep(0.001 * (5 - number))
    return number


async def test_results_come_in_the_order_of_the_calls() -> None:
    assert await gather_or_cancel(map(value, range(5))) == [0, 1, 2, 3, 4]
    assert await gather_or_cancel([]) == []


async def test_the_first_error_is_raised_itself_and_the_others_have_ended() -> None:
    ended: list[str] = []

    async def failing() -> None:
        await asyncio.sleep(0)
        raise LookupError("first") from ValueError("its cause")

    async def waiting() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append("waiting")

    with pytest.raises(LookupError, match="first") as caught:
        await gather_or_cancel([waiting(), failing()])
    assert ended == ["waiting"]
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_cancelled_caller_cancels_its_calls() -> None:
    ended = asyncio.Event()

    async def waiting() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    caller = asyncio.create_task(gather_or_cancel([waiting()]))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
