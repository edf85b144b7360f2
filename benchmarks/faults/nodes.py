"""A Ray cluster of several nodes on this machine, whose nodes can be removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.cluster_utils import Cluster

from benchmarks.faults.lives import process

CPUS = 3
PROMPT_CHECKS = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}
"""With these settings Ray misses a killed node within about 3 seconds, in place of 15."""


@dataclass(frozen=True, slots=True)
class Node:
    """A worker node: Ray's object, and the process that is the parent of all its actors."""

    number: int
    handle: Any
    raylet: int


class Nodes:
    """A head that takes no actors, and one node with CPUS for replicas; after `grow`, `count` of them. All is
    gone after the context. Ray lets the main thread alone start nodes."""

    def __init__(self, count: int, *, prompt: bool = False) -> None:
        head: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False}
        if prompt:
            head["_system_config"] = PROMPT_CHECKS
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._target = count
        self._count = 0
        self._nodes: list[Node] = []
        self._add()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def grow(self) -> None:
        while len(self._nodes) < self._target:
            self._add()

    def host(self, pid: int) -> Node | None:
        """The node whose actor the process `pid` is, or None."""
        actor = process(pid)
        return next((node for node in self._nodes if actor and node.raylet == actor.parent), None)

    def replace(self, node: Node, *, graceful: bool) -> None:
        """Remove a node, at once or with time for its processes to end, and add another one."""
        self._nodes.remove(node)
        self._cluster.remove_node(node.handle, allow_graceful=graceful)
        self._add()

    def _add(self) -> None:
        handle = self._cluster.add_node(num_cpus=CPUS)
        [raylet] = handle.all_processes["raylet"]
        self._count += 1
        self._nodes.append(Node(self._count, handle, raylet.process.pid))
