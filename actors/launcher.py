"""Replicas as Ray actors.

Invariant: every error of Ray becomes one of the errors of `handles`; no RayError leaves this module.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pmpo_ray.actors.cluster import connected_cluster, lost_process
from pmpo_ray.actors.handles import ReplicaError, ReplicaFaultError, ReplicaLostError, ReplicaUnreachableError
from pmpo_ray.actors.process import kill_here
from pmpo_ray.actors.resources import ReplicaPlan, actor_options, bundles
from pmpo_ray.errors import EndpointError, PmpoError
from pmpo_ray.text import error_line
from pmpo_ray.types import EngineInfo

_NODE_DIED = "node has died"
"""A part of Ray's message about an actor whose node is gone; no field of the error tells this."""


class ReplicaActor(Protocol):
    """The interface of an actor class. The constructor must not fail, and `ping` must answer while other
    calls are at work."""

    async def start(self) -> EngineInfo: ...

    async def ping(self) -> str: ...


class RayReplica:
    """One actor, in a placement group if it is split over several GPUs."""

    def __init__(self, actor: Any, group: PlacementGroup | None) -> None:
        self._actor = actor
        self._group = group
        self._where = ""

    async def ping(self) -> str:
        self._where = await _answer(self._actor.ping.remote())
        return self._where

    async def start(self) -> EngineInfo:
        info: EngineInfo = await _answer(self._actor.start.remote())
        return info

    async def call(self, method: str, *args: object) -> Any:
        return await _answer(getattr(self._actor, method).remote(*args))

    def end(self) -> None:
        if lost_process() is not None:
            # Nothing of Ray is left that would end it.
            kill_here(self._where)
            return
        if not ray.is_initialized():
            return
        ray.kill(self._actor)
        if self._group is not None:
            remove_placement_group(self._group)


class RayLauncher:
    """Makes actors of one class with the same arguments, each with the resources of `plan`."""

    def __init__(self, actor: type[ReplicaActor], args: tuple[object, ...], plan: ReplicaPlan) -> None:
        self._class = ray.remote(actor)
        self._args = args
        self._plan = plan

    def launch(self) -> RayReplica:
        options: dict[str, Any] = {**actor_options(self._plan)}
        group = None
        if self._plan.tensor_parallel > 1:
            group = placement_group(bundles(self._plan), strategy="STRICT_PACK")
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
            )
        return RayReplica(self._class.options(**options).remote(*self._args), group)

    def missing(self) -> str:
        return f"each needs {self._plan.summary}, {connected_cluster().summary}"


async def _answer(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except RayTaskError as error:
        raise _raised(error) from None
    except ActorUnavailableError as error:
        raise ReplicaUnreachableError(_line(error)) from None
    except (RayActorError, NodeDiedError) as error:
        raise _lost(error) from None
    except ObjectLostError as error:
        # The answer was lost with its node before it arrived.
        raise ReplicaUnreachableError(_line(error)) from None
    except RayError as error:
        raise ReplicaLostError(_line(error)) from None


def _raised(error: RayTaskError) -> PmpoError | ReplicaError:
    """The error that the actor's method raised."""
    cause = error.cause
    if isinstance(cause, PmpoError):
        return cause
    if isinstance(cause, EndpointError):
        return ReplicaLostError(str(cause), blameless=True)
    if cause is None or isinstance(cause, RayError):
        # For example, an argument was lost with the node that held it.
        return ReplicaUnreachableError(_line(error))
    first, *_ = str(cause).splitlines() or [""]
    return ReplicaFaultError(error_line(f"{type(cause).__name__}: {first}"))


def _lost(error: RayActorError | NodeDiedError) -> ReplicaLostError:
    blameless = isinstance(error, NodeDiedError) or error.preempted or _NODE_DIED in str(error)
    if isinstance(error, ActorDiedError) and error.actor_init_failed:
        # Ray's message is the traceback of the constructor; its last line is the error.
        return ReplicaLostError(_line(error))
    return ReplicaLostError(_line(error), blameless=blameless)


def _line(error: RayError) -> str:
    """The last line of Ray's message, which says what happened."""
    *_, last = str(error).strip().splitlines() or [""]
    return error_line(f"{type(error).__name__}: {last}")
