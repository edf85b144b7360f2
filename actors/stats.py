"""What a pool tells about itself.

Invariant: a snapshot; it does not change with the pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pmpo_ray.actors.health import ReplicaState


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """One live replica, now. `where` is "host:pid" once it has a place."""

    id: int
    state: ReplicaState
    where: str
    in_flight: int
    done: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool, now. `done` counts answered calls, `failed` units that failed, `retries` calls that had to be
    made again, `lost` replicas that died or were given up, `tokens` what the answers took to compute.
    Seconds are summed over all replicas that ever were: with work, and able to work."""

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
        """How many live replicas there are in each state."""
        return Counter(str(replica.state) for replica in self.replicas)
