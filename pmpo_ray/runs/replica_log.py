"""How many replicas a run has over time, kept in its folder for whoever looks at it later.

Invariants: a count is noted when it changes, and once at the end of every pool's time; what could not be
written ends no run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from pmpo_ray.errors import RunFolderError
from pmpo_ray.types import ReplicaCount

LOOK_SECONDS = 2.0
WRITE_SECONDS = 60.0
_log = logging.getLogger(__name__)


class ReplicaStates(Protocol):
    """A snapshot of a pool: how many live replicas are in each state."""

    @property
    def states(self) -> Mapping[str, int]: ...


class ReplicaLog:
    """The counts seen so far, oldest first."""

    def __init__(self) -> None:
        self._counts: list[ReplicaCount] = []
        self._last: dict[str, tuple[int, int]] = {}

    @property
    def counts(self) -> tuple[ReplicaCount, ...]:
        return tuple(self._counts)

    def look(self, pool: str, states: Mapping[str, int], at: float) -> None:
        """Note how a pool stands at `at` (seconds since 1970) where that has changed."""
        # A replica that is being probed still has its model loaded.
        now = (states.get("ready", 0) + states.get("suspect", 0), states.get("starting", 0))
        if self._last.get(pool) != now:
            self._last[pool] = now
            self._counts.append(ReplicaCount(at, pool, *now))

    def end(self, at: float) -> None:
        """Note that no pool has a replica any more."""
        for pool in list(self._last):
            self.look(pool, {}, at)


@asynccontextmanager
async def logging_replicas(
    pools: Mapping[str, Callable[[], ReplicaStates]],
    write: Callable[[Sequence[ReplicaCount]], None],
    clock: Callable[[], float],
) -> AsyncIterator[None]:
    """Note the replicas of `pools` until the block ends, which also an error or a cancellation is, and hand
    all that was noted to `write`, in a thread, every minute and at the end."""
    log = ReplicaLog()
    ended = asyncio.Event()
    keeper = asyncio.create_task(_keep(log, pools, write, clock, ended))
    try:
        yield
    finally:
        ended.set()
        await keeper


async def _keep(
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
            log.look(pool, stats().states, clock())
        if last:
            log.end(clock())
        if len(log.counts) > written and (last or clock() >= due):
            written, due = len(log.counts), clock() + WRITE_SECONDS
            try:
                await asyncio.to_thread(write, log.counts)
            except RunFolderError as error:
                # The picture of the replicas is worth less than the run; its own writes will fail, too.
                _log.warning("the number of replicas was not kept: %s", error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), LOOK_SECONDS)
