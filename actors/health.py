"""A replica's state machine, as data.

Invariants: DEAD and RETIRED are final; work is only given in READY; a replica that failed a call comes back
to READY only by answering a probe.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class ReplicaState(StrEnum):
    """Where a replica stands. PENDING: the cluster has no room for it yet; STARTING: its process is there
    and loads the model."""

    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    SUSPECT = "suspect"
    DEAD = "dead"
    RETIRED = "retired"


class ReplicaEvent(StrEnum):
    """What can happen to a replica. LOST: it died, or was given up; RETIRE: it is not wanted any more."""

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
        # Its unit is overdue: it is not asked whether it can go on, for its event loop may still answer.
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
"""States of a replica that has loaded its model and was not given up."""


def advance(state: ReplicaState, event: ReplicaEvent) -> ReplicaState:
    """The state after `event`. Raises ValueError where `event` cannot happen in `state`."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"a replica that is {state} cannot take the event {event!r}") from None


def takes_work(state: ReplicaState) -> bool:
    """Whether a replica in `state` may be given a unit."""
    return state is ReplicaState.READY
