"""The interface between a pool and a replica, on a Ray cluster or in virtual time.

Invariant: a call ends with the replica's answer, with the EngineError, DataError or other PmpoError that the
replica raised, or with one of the three errors below, and with nothing else. A call that raised one of the
three may or may not have been executed.
"""

from __future__ import annotations

from typing import Any, Protocol

from pmpo_ray.types import EngineInfo


class ReplicaError(Exception):
    """A call failed and the replica is the reason. The text is one line."""


class ReplicaFaultError(ReplicaError):
    """The replica answered with an error that the request did not cause."""


class ReplicaUnreachableError(ReplicaError):
    """The replica is out of reach now; it may come back, or turn out to be lost."""


class ReplicaLostError(ReplicaError):
    """The replica is gone for good. `blameless` if no request can have caused it, such as the loss of a whole
    node or of the server behind the engine."""

    def __init__(self, reason: str, *, blameless: bool = False) -> None:
        super().__init__(reason)
        self.blameless = blameless


class ReplicaHandle(Protocol):
    """One replica, from the moment that it is requested."""

    async def ping(self) -> str:
        """The replica's process as "host:pid". Answers as soon as the replica has a place on a node, also
        while calls are at work."""
        ...

    async def start(self) -> EngineInfo:
        """Load the model. Raises PmpoError if no replica could load it."""
        ...

    async def call(self, method: str, *args: object) -> Any:
        """The answer of a method of the replica's actor class."""
        ...

    def end(self) -> None:
        """End the replica at once, even during a call, and free its resources. May be called again."""
        ...


class Launcher(Protocol):
    """Makes the replicas of one pool."""

    def launch(self) -> ReplicaHandle:
        """Request one more replica; returns at once, before the replica has a place."""
        ...

    def missing(self) -> str:
        """The resources that a replica needs and those of the cluster, for the message of a pool without
        replicas."""
        ...
