"""The number of replicas that a pool should have.

Invariants: pure; the number is between `minimum` and `maximum`; a replica is retired only after it has been
idle for `idle_seconds`, so that the pause between two rounds does not cost a restart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pmpo_ray.actors.dispatch import Replica
from pmpo_ray.actors.health import ReplicaState


@dataclass(frozen=True, slots=True)
class Bounds:
    """The minimum and maximum number of replicas, and the seconds that one is idle before it is retired."""

    minimum: int
    maximum: int
    idle_seconds: float


def target_count(bounds: Bounds, demand: int, slots: int) -> int:
    """The number of replicas for `demand` slots of waiting and outstanding work. Each works on `slots` slots
    and has as many waiting, so that a further replica is started only if there is work for it."""
    return max(bounds.minimum, min(bounds.maximum, math.ceil(demand / (2 * slots))))


def surplus(bounds: Bounds, live: Sequence[Replica], demand: int, slots: int, now: float) -> list[Replica]:
    """The `live` replicas to retire now: first those without a place, then idle ones, the youngest first. A
    replica that is loading its model is not among them."""
    extra = len(live) - target_count(bounds, demand, slots)
    if extra <= 0:
        return []
    idle = [
        replica
        for replica in live
        if replica.state in (ReplicaState.PENDING, ReplicaState.READY)
        and not replica.outstanding
        and now - replica.idle_since >= bounds.idle_seconds
    ]
    idle.sort(key=lambda replica: (replica.state is not ReplicaState.PENDING, -replica.id))
    return idle[:extra]
