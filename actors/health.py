"""A replica's state machine, as data.

Invariants: DEAD and RETIRED are final; only a READY replica gets work; a replica that failed a call becomes
READY again only by answering a probe.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class ReplicaState(StrEnum):
    """The state of a replica. PENDING: the cluster has no room for it yet; STARTING: its process runs and
    loads the model; SUSPECT: it failed a call and is being probed."""

    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    SUSPECT = "suspect"
    DEAD = "dead"
    RETIRED = "retired"


class ReplicaEvent(StrEnum):
    """An event in the life of a replica. LOST: it died or was given up; RETIRE: it is no longer needed."""

    PLACED = "placed"
    STARTED = "started"
    CALL_FAILED = "call failed"
    PROBE_ANSWERED = "probe answered"
    LOST = "lost"
    RETIRE = "retire"


TRANSITIONS: Mapping[tuple[ReplicaState, ReplicaEvent], ReplicaState] = MappingProxyType(
    {
        (ReplicaState.PENDING, ReplicaEvent.PLACED): ReplicaState.STARTING,
        (ReplicaState.PENDING, ReplicaEvent.LOST): ReplicaState.DEAD,
        (ReplicaState.PENDING, ReplicaEvent.RETIRE): ReplicaState.RETIRED,
        (ReplicaState.STARTING, ReplicaEvent.STARTED): ReplicaState.READY,
        (ReplicaState.STARTING, ReplicaEvent.LOST): ReplicaState.DEAD,
        (ReplicaState.STARTING, ReplicaEvent.RETIRE): ReplicaState.RETIRED,
        (ReplicaState.READY, ReplicaEvent.CALL_FAILED): ReplicaState.SUSPECT,
        # A unit is overdue. The replica is not probed, since its event loop may still answer.
        (ReplicaState.READY, ReplicaEvent.LOST): ReplicaState.DEAD,
        (ReplicaState.READY, ReplicaEvent.RETIRE): ReplicaState.RETIRED,
        # Several calls may be in flight when the first one fails.
        (ReplicaState.SUSPECT, ReplicaEvent.CALL_FAILED): ReplicaState.SUSPECT,
        (ReplicaState.SUSPECT, ReplicaEvent.PROBE_ANSWERED): ReplicaState.READY,
        (ReplicaState.SUSPECT, ReplicaEvent.LOST): ReplicaState.DEAD,
        (ReplicaState.SUSPECT, ReplicaEvent.RETIRE): ReplicaState.RETIRED,
    }
)

FINAL = frozenset({ReplicaState.DEAD, ReplicaState.RETIRED})
WORKING = frozenset({ReplicaState.READY, ReplicaState.SUSPECT})
"""The states of a replica that has loaded its model and was not given up."""


def advance(state: ReplicaState, event: ReplicaEvent) -> ReplicaState:
    """The state after `event`. Raises ValueError if `event` cannot happen in `state`."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"a replica that is {state} cannot take the event {event!r}") from None


def takes_work(state: ReplicaState) -> bool:
    """True if a replica in `state` may get a unit."""
    return state is ReplicaState.READY
