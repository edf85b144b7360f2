"""The resources of a cluster and of its actors.

Invariant: plain values; nothing here asks a cluster for anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal, TypedDict

from pmpo_ray.engines.placement import Placement

GIGABYTE = 10**9
MAX_CONCURRENCY = 1000
"""Calls that an actor accepts at once: far more than a pool has in flight, since a full replica must still
answer pings."""
SPIN_COUNT = "2000"
"""Rounds of busy waiting in GNU OpenMP. The default costs a scorer and a rewriter on the same two cores more
than half of their throughput; this one costs a replica that has the cores to itself nothing."""


@dataclass(frozen=True, slots=True)
class NodeResources:
    """The resources that one node offers to actors."""

    cpus: float
    gpus: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class ClusterResources:
    """The resources of a cluster's live nodes, in use or not."""

    nodes: tuple[NodeResources, ...]

    @classmethod
    def of_nodes(cls, nodes: Iterable[Mapping[str, Any]]) -> ClusterResources:
        """The resources of the live ones of `nodes`, as `ray.nodes()` returns them."""
        return cls(
            tuple(
                NodeResources(
                    cpus=node["Resources"].get("CPU", 0.0),
                    gpus=node["Resources"].get("GPU", 0.0),
                    memory_bytes=int(node["Resources"].get("memory", 0)),
                )
                for node in nodes
                if node["Alive"]
            )
        )

    @property
    def cpus(self) -> float:
        """The sum over all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """The sum over all nodes."""
        return sum(node.gpus for node in self.nodes)

    @property
    def memory_bytes(self) -> int:
        """The sum over all nodes."""
        return sum(node.memory_bytes for node in self.nodes)

    @property
    def summary(self) -> str:
        """The nodes and their resources in words."""
        return f"the {len(self.nodes)} nodes have {cpus_in_words(self.cpus)} and {self.gpus:g} GPU in all"


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """The resources of each of up to `replicas` actors, of which `min_replicas` always run. `threads` are
    those of one forward pass on the CPU. With `tensor_parallel` above 1 each actor has a placement group of
    so many GPUs on one node, for the workers of its engine. `day` is the date in prompts (`Placement`)."""

    replicas: int
    num_cpus: float
    num_gpus: float
    memory_bytes: int | None
    threads: int
    device: Literal["cpu", "cuda"]
    min_replicas: int = 1
    tensor_parallel: int = 1
    day: date | None = None

    @property
    def placement(self) -> Placement:
        """The hardware and the date that each replica's engine is handed."""
        return Placement(self.device, self.threads, self.num_gpus, self.day)

    @property
    def memory_gb(self) -> float:
        """The memory reserved for one replica; 0 if none is reserved."""
        return (self.memory_bytes or 0) / GIGABYTE

    @property
    def summary(self) -> str:
        """The resources of one replica in words."""
        parts = [cpus_in_words(self.num_cpus)]
        if self.num_gpus:
            parts.append(f"{self.num_gpus:g} GPU")
        if self.memory_bytes:
            parts.append(f"{self.memory_gb:g} GB")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Plan:
    """The pools of a run; `rewriter` is None if the scorer's replicas also rewrite."""

    scorer: ReplicaPlan
    rewriter: ReplicaPlan | None

    def on_day(self, day: date) -> Plan:
        """This plan with the date that all replicas show in prompts."""
        rewriter = None if self.rewriter is None else replace(self.rewriter, day=day)
        return Plan(replace(self.scorer, day=day), rewriter)

    @property
    def roles(self) -> dict[str, ReplicaPlan]:
        """Each pool by the section of the configuration that describes it."""
        only = {"scorer": self.scorer}
        return only if self.rewriter is None else only | {"rewriter": self.rewriter}


class ActorOptions(TypedDict):
    """The arguments of a Ray actor class's `.options()`."""

    num_cpus: float
    num_gpus: float
    memory: int | None
    max_restarts: int
    max_task_retries: int
    max_concurrency: int
    runtime_env: dict[str, dict[str, str]]


def actor_options(plan: ReplicaPlan) -> ActorOptions:
    """The `.options()` of one replica. Ray restarts no actor, since the pool replaces dead ones.

    An actor in a placement group takes no GPU: the GPUs are for its engine's workers.

    Ray would set OMP_NUM_THREADS to `num_cpus`, which is a share for scheduling and no thread count; torch
    reads the variable when it is imported in the actor's process. Replicas of both roles may share a node's
    cores, so waiting threads spin only briefly: they would take the cores from threads that work.
    """
    return ActorOptions(
        num_cpus=plan.num_cpus,
        num_gpus=0 if plan.tensor_parallel > 1 else plan.num_gpus,
        memory=plan.memory_bytes,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=MAX_CONCURRENCY,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": str(plan.threads), "GOMP_SPINCOUNT": SPIN_COUNT}},
    )


def bundles(plan: ReplicaPlan) -> list[dict[str, float]]:
    """The bundles of a replica's placement group: one GPU each, the first also the CPUs and memory."""
    first: dict[str, float] = {"GPU": 1.0, "CPU": plan.num_cpus}
    if plan.memory_bytes is not None:
        first["memory"] = plan.memory_bytes
    return [first, *({"GPU": 1.0} for _ in range(plan.tensor_parallel - 1))]


def cpus_in_words(count: float) -> str:
    """Such as "1 CPU" or "2.5 CPUs"."""
    return f"{count:g} CPU" if count == 1 else f"{count:g} CPUs"
