"""Statistics of a pool.

Invariant: a snapshot; it does not change when the pool does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pmpo_ray.actors.dispatch import Replica
from pmpo_ray.actors.health import ReplicaState


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """A live replica at one moment. `where` is "host:pid" once it has a place."""

    id: int
    state: ReplicaState
    where: str
    in_flight: int
    done: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool at one moment. `done` counts answered calls, `failed` failed units, `retries` repeated calls,
    `lost` replicas that died or were given up, `tokens` the tokens that the answers took to compute. Seconds
    are summed over all replicas since the pool's start: with work, and able to work."""

    queued: int
    in_flight: int
    done: int
    failed: int
    retries: int
    lost: int
    tokens: int
    busy_seconds: float
    ready_seconds: float
    replicas: tuple[ReplicaStats, ...]

    @property
    def states(self) -> Mapping[str, int]:
        """The number of live replicas in each state."""
        return Counter(str(replica.state) for replica in self.replicas)


@dataclass(slots=True)
class Totals:
    """The running totals of a pool. The fields are those of `PoolStats`; the seconds here are those of
    replicas that have ended."""

    done: int = 0
    failed: int = 0
    retries: int = 0
    lost: int = 0
    tokens: int = 0
    busy_seconds: float = 0.0
    ready_seconds: float = 0.0

    def end(self, replica: Replica, now: float) -> None:
        """Add the seconds of a replica that ends."""
        self.busy_seconds += replica.busy(now)
        self.ready_seconds += replica.able(now)

    def snapshot(self, queued: int, live: Iterable[Replica], now: float) -> PoolStats:
        """Statistics of the pool with `queued` waiting units and the replicas `live`."""
        replicas = tuple(live)
        return PoolStats(
            queued=queued,
            in_flight=sum(len(replica.outstanding) for replica in replicas),
            done=self.done,
            failed=self.failed,
            retries=self.retries,
            lost=self.lost,
            tokens=self.tokens,
            busy_seconds=self.busy_seconds + sum(replica.busy(now) for replica in replicas),
            ready_seconds=self.ready_seconds + sum(replica.able(now) for replica in replicas),
            replicas=tuple(
                ReplicaStats(replica.id, replica.state, replica.where, len(replica.outstanding), replica.done)
                for replica in replicas
            ),
        )
