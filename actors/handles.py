"""What a pool needs of a replica, wherever it runs: on a Ray cluster, or in virtual time.

Invariant: a call ends with the replica's own answer, with the EngineError, DataError or other PmpoError that
the replica raised, or with one of the three errors below; it never ends with anything else. That a call
raised one of the three says nothing of whether it was executed.
"""

from __future__ import annotations

from typing import Any, Protocol

from pmpo_ray.types import EngineInfo


class ReplicaError(Exception):
    """A call failed for a reason that lies in the replica. The text is one line."""


class ReplicaFaultError(ReplicaError):
    """The replica is there and answered with an error that is not the request's."""


class ReplicaUnreachableError(ReplicaError):
    """The replica cannot be reached now; it may come back, or turn out to be lost."""


class ReplicaLostError(ReplicaError):
    """The replica is gone for good. `blameless`: for what no request can cause, its whole node being lost or
    the server behind it."""

    def __init__(self, reason: str, *, blameless: bool = False) -> None:
        super().__init__(reason)
        self.blameless = blameless


class ReplicaHandle(Protocol):
    """One replica, from the moment that it was asked for."""

    async def ping(self) -> str:
        """Where it lives, as "host:pid". Answers as soon as the replica has a place, and also while calls
        are at work."""
        ...

    async def start(self) -> EngineInfo:
        """Load the model. Raises a PmpoError where the model cannot be loaded anywhere."""
        ...

    async def call(self, method: str, *args: object) -> Any:
        """The answer of a method of the replica's actor class."""
        ...

    def end(self) -> None:
        """End it at once and give its place back, whatever it is doing. May be called again."""
        ...


class Launcher(Protocol):
    """Makes the replicas of one pool."""

    def launch(self) -> ReplicaHandle:
        """Ask for one more replica; returns at once, before there is a place for it."""
        ...

    def missing(self) -> str:
        """What a replica asks for and what there is, for the message of a pool that gets none."""
        ...
