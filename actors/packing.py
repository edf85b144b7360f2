"""Packing replicas onto the nodes of a cluster.

Invariants: pure; a replica lies on one node, and a share of a GPU on one GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations

from pmpo_ray.actors.resources import (
    GIGABYTE,
    ClusterResources,
    NodeResources,
    ReplicaPlan,
    cpus_in_words,
)
from pmpo_ray.errors import ResourceError

EPSILON = 1e-6
"""Slack for sums of fractions such as 3 x 0.33."""


def pack(parts: Sequence[ReplicaPlan], cluster: ClusterResources) -> list[list[int]] | None:
    """The number of replicas of each part on each node, or None if they do not fit. First fit, in every order
    of the parts until one fits."""
    for order in permutations(range(len(parts))):
        nodes = [_FreeNode(node) for node in cluster.nodes]
        counts = [[0] * len(nodes) for _ in parts]
        if all(_pack_part(parts[index], nodes, counts[index]) for index in order):
            return counts
    return None


def check_fits(parts: Mapping[str, ReplicaPlan], cluster: ClusterResources) -> None:
    """Raise ResourceError if the cluster, in its present size, cannot hold the minimum of replicas of all
    roles at once, at least one of each. Not for clusters that grow on demand."""
    roles = [(role, replace(part, replicas=max(1, part.min_replicas))) for role, part in parts.items()]
    _check_sum(
        " + ".join(
            f"{role}.replicas={part.replicas} x {cpus_in_words(part.num_cpus)}" for role, part in roles
        ),
        sum(part.replicas * part.num_cpus for _, part in roles),
        cluster.cpus,
        ("CPUs", "cpus"),
    )
    _check_sum(
        " + ".join(f"{role}.replicas={part.replicas} x {part.num_gpus:g} GPU" for role, part in roles),
        sum(part.replicas * part.num_gpus for _, part in roles),
        cluster.gpus,
        ("GPUs", "gpus"),
    )
    _check_sum(
        " + ".join(f"{role}.replicas={part.replicas} x {part.memory_gb:g} GB" for role, part in roles),
        sum(part.replicas * part.memory_gb for _, part in roles),
        cluster.memory_bytes / GIGABYTE,
        ("GB of memory", "memory_gb"),
    )
    for role, part in roles:
        if not any(_FreeNode(node).take(part) for node in cluster.nodes):
            raise ResourceError(
                f"a replica of the {role} with {part.summary} fits on no single node; lower {role}.cpus, "
                f"{role}.gpus or {role}.memory_gb, or use larger nodes"
            )
    if pack([part for _, part in roles], cluster) is None:
        requested = " + ".join(f"{role}.replicas={part.replicas} x ({part.summary})" for role, part in roles)
        raise ResourceError(
            f"{requested} do not fit on the cluster's {len(cluster.nodes)} nodes at the same time; lower the "
            "number of replicas or the resources of each, or add nodes"
        )


class _FreeNode:
    """The resources that are still free on a node while replicas are packed."""

    def __init__(self, node: NodeResources) -> None:
        self.cpus = node.cpus
        self.memory_bytes = node.memory_bytes
        self.gpus = [1.0] * int(node.gpus)

    def take(self, part: ReplicaPlan) -> bool:
        """Place one replica here; False if it does not fit."""
        share = min(part.num_gpus, 1.0)
        count = math.ceil(part.num_gpus)
        chosen = [index for index, free in enumerate(self.gpus) if free >= share - EPSILON][:count]
        memory = part.memory_bytes or 0
        if part.num_cpus > self.cpus + EPSILON or memory > self.memory_bytes or len(chosen) < count:
            return False
        self.cpus -= part.num_cpus
        self.memory_bytes -= memory
        for index in chosen:
            self.gpus[index] -= share
        return True


def _pack_part(part: ReplicaPlan, nodes: list[_FreeNode], counts: list[int]) -> bool:
    for _ in range(part.replicas):
        index = next((index for index, node in enumerate(nodes) if node.take(part)), None)
        if index is None:
            return False
        counts[index] += 1
    return True


def _check_sum(requested: str, total: float, available: float, names: tuple[str, str]) -> None:
    unit, key = names
    if total > available + EPSILON:
        raise ResourceError(
            f"{requested} need {total:g} {unit}, the cluster has {available:g}; lower replicas or {key}, add "
            "nodes, or set ray.autoscaling=true if the cluster grows on demand"
        )
