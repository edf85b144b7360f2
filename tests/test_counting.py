"""The counts of the work that was asked for and is done."""

from __future__ import annotations

import asyncio

import pytest

from pmpo_ray.counting import counted, counting


async def work(parts: int, fails_after: int | None = None) -> None:
    with counted(parts) as done:
        for number in range(parts):
            await asyncio.sleep(0)
            if number == fails_after:
                raise ValueError("no")
            done(1)


async def test_parts_of_several_tasks_are_counted_together_and_anew_when_all_are_done() -> None:
    reports: list[tuple[int, int]] = []
    with counting(lambda done, asked: reports.append((done, asked))):
        await asyncio.gather(work(2), work(3))
        assert reports[0] == (0, 2)
        assert reports[1] == (0, 5)
        assert reports[-1] == (5, 5)
        await work(1)
    assert reports[-2:] == [(0, 1), (1, 1)]


async def test_parts_that_fail_are_no_longer_asked_for() -> None:
    reports: list[tuple[int, int]] = []
    with counting(lambda done, asked: reports.append((done, asked))):
        with pytest.raises(ValueError, match="no"):
            await work(3, fails_after=1)
        assert reports[-1] == (1, 1)


async def test_each_block_has_its_own_counts_and_outside_nothing_is_counted() -> None:
    reports: dict[str, tuple[int, int]] = {}

    async def task(name: str, parts: int) -> None:
        with counting(lambda done, asked: reports.__setitem__(name, (done, asked))):
            await work(parts)

    await work(1)
    await asyncio.gather(task("a", 2), task("b", 4))
    assert reports == {"a": (2, 2), "b": (4, 4)}
