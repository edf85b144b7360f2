"""The numbers of replicas of a run over time, stored in its folder.

Invariants: a count is recorded when it changes, and once at the end of every pool; a failed write does not
end the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from pmpo_ray.errors import RunFolderError
from pmpo_ray.outcomes import ReplicaCount

READ_SECONDS = 2.0
WRITE_SECONDS = 60.0
_log = logging.getLogger(__name__)


class ReplicaStates(Protocol):
    """A snapshot of a pool: the number of live replicas in each state."""

    @property
    def states(self) -> Mapping[str, int]: ...


class ReplicaLog:
    """The counts recorded so far, oldest first."""

    def __init__(self) -> None:
        self._counts: list[ReplicaCount] = []
        self._last: dict[str, tuple[int, int]] = {}

    @property
    def counts(self) -> tuple[ReplicaCount, ...]:
        return tuple(self._counts)

    def record(self, pool: str, states: Mapping[str, int], at: float) -> None:
        """Record the states of a pool at the time `at` (seconds since 1970) if they have changed."""
        # A suspect replica is being probed: its model is still loaded.
        current = (states.get("ready", 0) + states.get("suspect", 0), states.get("starting", 0))
        if self._last.get(pool) != current:
            self._last[pool] = current
            self._counts.append(ReplicaCount(at, pool, *current))

    def end(self, at: float) -> None:
        """Record that no pool has replicas any more."""
        for pool in list(self._last):
            self.record(pool, {}, at)


@asynccontextmanager
async def logging_replicas(
    pools: Mapping[str, Callable[[], ReplicaStates]],
    write: Callable[[Sequence[ReplicaCount]], None],
    clock: Callable[[], float],
) -> AsyncIterator[None]:
    """Record the replicas of `pools` until the block ends, also by an error or a cancellation. Every minute
    and at the end, call `write` with all counts, in a thread. `clock` returns seconds since 1970."""
    log = ReplicaLog()
    ended = asyncio.Event()
    recording = asyncio.create_task(_record(log, pools, write, clock, ended))
    try:
        yield
    finally:
        ended.set()
        await recording


async def _record(
    log: ReplicaLog,
    pools: Mapping[str, Callable[[], ReplicaStates]],
    write: Callable[[Sequence[ReplicaCount]], None],
    clock: Callable[[], float],
    ended: asyncio.Event,
) -> None:
    written, due = 0, clock() + WRITE_SECONDS
    last = False
    while not last:
        last = ended.is_set()
        for pool, stats in pools.items():
            log.record(pool, stats().states, clock())
        if last:
            log.end(clock())
        if len(log.counts) > written and (last or clock() >= due):
            written, due = len(log.counts), clock() + WRITE_SECONDS
            try:
                await asyncio.to_thread(write, log.counts)
            except RunFolderError as error:
                # These counts matter less than the run. If the disk is full, its other writes fail as well.
                _log.warning("the number of replicas was not stored: %s", error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), READ_SECONDS)
