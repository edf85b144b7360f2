"""A unit of work: one call to be made on some replica.

Invariants: a caller is answered once; a failure counts against a unit only if no other unit can have caused
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from pmpo_ray.actors.handles import ReplicaError, ReplicaLostError, ReplicaUnreachableError

FAULTS_PER_UNIT = 3
"""A unit fails after so many failed tries alone on a replica."""
OUTAGES_PER_UNIT = 8
"""A unit fails after so many tries that failed because a node or a server was lost or out of reach, which is
hardly ever the unit's fault."""

Rank = tuple[int, float, int]


@dataclass(slots=True, eq=False)
class Unit:
    """One call to be made on some replica.

    `weight` is its expected work in tokens, `urgency` the number of rounds that wait for it, `slots` the
    number of a replica's slots that it takes, `group` a value that units with a common prefix share.

    `tried_on` are the ids of the replicas that failed it. `outages` counts the failures that it cannot have
    caused, `faults` those that happened while it was alone on its replica, so that no other unit can have
    caused them. It is `suspected` once it may have caused a failure.
    """

    method: str
    args: tuple[object, ...]
    weight: float
    order: int
    future: asyncio.Future[Any]
    slots: int = 1
    group: Hashable = None
    urgency: int = 0
    waiting: bool = False
    tried_on: list[int] = field(default_factory=list)
    suspected: bool = False
    faults: int = 0
    outages: int = 0

    @property
    def key(self) -> Hashable:
        """Its group; a unit without one is a group by itself."""
        return (None, self.order) if self.group is None else self.group

    @property
    def rank(self) -> Rank:
        """Units of lower rank go first."""
        return -self.urgency, -self.weight, self.order

    @property
    def exhausted(self) -> bool:
        """True if the unit failed too often for another try."""
        return self.faults >= FAULTS_PER_UNIT or self.outages >= OUTAGES_PER_UNIT

    def note_failure(self, replica: int, error: ReplicaError, *, shared: bool) -> None:
        """Count a failed try on `replica`, which other units shared or not."""
        self.tried_on.append(replica)
        if isinstance(error, ReplicaUnreachableError) or (
            isinstance(error, ReplicaLostError) and error.blameless
        ):
            self.outages += 1
        else:
            self.suspected = True
            # Next to other units it may be blameless; the next try, alone, will show.
            self.faults += not shared

    def resolve(self, result: object) -> None:
        """Hand `result` to the caller, unless the caller has gone."""
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """Hand `error` to the caller, unless the caller has gone."""
        if not self.future.done():
            self.future.set_exception(error)
            # Mark the error as retrieved: an interruption may come before anybody awaits the unit.
            self.future.exception()
