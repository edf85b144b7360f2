"""How many replicas a pool should have.

Invariants: pure; never fewer than `fewest` nor more than `most`; a replica is given up only after it has been
idle for the whole debounce, so that the pause between two rounds does not cost a restart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pmpo_ray.actors.dispatch import Replica
from pmpo_ray.actors.health import ReplicaState


@dataclass(frozen=True, slots=True)
class Bounds:
    """The fewest and the most replicas, and the seconds that one is idle before it goes."""

    fewest: int
    most: int
    idle_seconds: float


def wanted(bounds: Bounds, demand: int, slots: int) -> int:
    """Replicas for `demand` slots of waiting and outstanding work, each with `slots` slots at work and as
    many waiting: one replica more only where there is something for it to do."""
    return max(bounds.fewest, min(bounds.most, math.ceil(demand / (2 * slots))))


def surplus(bounds: Bounds, live: Sequence[Replica], demand: int, slots: int, now: float) -> list[Replica]:
    """Of the `live` replicas those to retire now: first such that have no place yet, then the idle ones,
    the youngest first. A replica that just starts is let come up."""
    extra = len(live) - wanted(bounds, demand, slots)
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
