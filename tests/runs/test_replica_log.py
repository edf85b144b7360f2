"""Numbers of replicas over time: recorded when they change, stored whatever ends the run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from pmpo_ray.errors import RunFolderError
from pmpo_ray.outcomes import ReplicaCount
from pmpo_ray.runs.replica_log import ReplicaLog, logging_replicas


@dataclass(frozen=True)
class States:
    states: Mapping[str, int]


def test_only_changes_are_recorded() -> None:
    log = ReplicaLog()
    for at, states in enumerate(
        ({"starting": 2}, {"starting": 2}, {"ready": 1, "starting": 1}, {"suspect": 1})
    ):
        log.record("scorer", states, float(at))
    log.record("rewriter", {"pending": 1}, 4.0)
    log.end(5.0)
    assert log.counts == (
        ReplicaCount(0.0, "scorer", 0, 2),
        ReplicaCount(2.0, "scorer", 1, 1),
        ReplicaCount(3.0, "scorer", 1, 0),
        ReplicaCount(4.0, "rewriter", 0, 0),
        ReplicaCount(5.0, "scorer", 0, 0),
    )


async def test_an_interrupted_run_leaves_its_counts() -> None:
    written: list[Sequence[ReplicaCount]] = []
    started = asyncio.Event()

    async def work() -> None:
        async with logging_replicas({"scorer": lambda: States({"ready": 3})}, written.append, lambda: 7.0):
            started.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await started.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert written[-1] == (ReplicaCount(7.0, "scorer", 3, 0), ReplicaCount(7.0, "scorer", 0, 0))


async def test_a_failed_write_of_counts_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    def write(_: Sequence[ReplicaCount]) -> None:
        raise RunFolderError("the disk is full")

    async with logging_replicas({"scorer": lambda: States({"ready": 1})}, write, lambda: 1.0):
        pass
    assert "the disk is full" in caplog.text
