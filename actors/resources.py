"""From the configuration to what each actor asks of the cluster.

Invariants: pure; a plan never asks for a GPU that the cluster lacks; whatever cannot fit is said at once, in
one line that names what was asked for, what there is, and what to change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, Literal, TypedDict

from pmpo_ray.config.engines import ReplicaConfig, RewriterConfig, ScorerConfig
from pmpo_ray.engines.placement import Placement
from pmpo_ray.errors import ConfigError, ResourceError

MIN_GPU_FRACTION = 0.05
GIGABYTE = 10**9
# Far above what a pool has in flight: a full replica must still answer pings.
MAX_CONCURRENCY = 1000
# Slack for sums of fractions such as 3 x 0.33.
EPSILON = 1e-6
# Rounds of busy waiting in GNU OpenMP. The default costs a scorer and a rewriter on the same two cores more
# than half of their throughput; this one costs a replica that has the cores to itself nothing.
SPIN_COUNT = "2000"


@dataclass(frozen=True, slots=True)
class NodeResources:
    """What one node offers to actors."""

    cpus: float
    gpus: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class ClusterResources:
    """What the nodes of a cluster offer, and their sums."""

    nodes: tuple[NodeResources, ...]

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)

    @property
    def memory_bytes(self) -> int:
        return sum(node.memory_bytes for node in self.nodes)


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """The resources of each of up to `replicas` actors, of which `min_replicas` always run. `threads` are those
    of one forward pass on the CPU. With `tensor_parallel` above 1 each actor has a placement group of so many
    GPUs on one node, for the workers of its engine."""

    replicas: int
    num_cpus: float
    num_gpus: float
    memory_bytes: int | None
    threads: int
    device: Literal["cpu", "cuda"]
    min_replicas: int = 1
    tensor_parallel: int = 1

    @property
    def placement(self) -> Placement:
        """The hardware that each replica's engine is handed."""
        return Placement(self.device, self.threads, self.num_gpus)


@dataclass(frozen=True, slots=True)
class Plan:
    """The pools of a run; `rewriter` is None where the scorer's replicas rewrite."""

    scorer: ReplicaPlan
    rewriter: ReplicaPlan | None

    @property
    def roles(self) -> dict[str, ReplicaPlan]:
        """Each pool by the section of the configuration that describes it."""
        only = {"scorer": self.scorer}
        return only if self.rewriter is None else only | {"rewriter": self.rewriter}


class ActorOptions(TypedDict):
    """Arguments of `.options()` of a Ray actor class."""

    num_cpus: float
    num_gpus: float
    memory: int | None
    max_restarts: int
    max_task_retries: int
    max_concurrency: int
    runtime_env: dict[str, dict[str, str]]


def cluster_resources(nodes: Iterable[Mapping[str, Any]]) -> ClusterResources:
    """The live nodes of a cluster, from what `ray.nodes()` returns."""
    return ClusterResources(
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


def actor_options(plan: ReplicaPlan) -> ActorOptions:
    """The `.options()` of one replica. The pool replaces dead actors itself, so Ray restarts none.

    An actor in a placement group takes no GPU itself: those are for its engine's workers.

    Ray would set OMP_NUM_THREADS to `num_cpus`, which is a share for scheduling and not a thread count;
    torch reads it when it is imported, in the actor's process. Replicas of both roles may share a node's
    cores: waiting threads then spin only briefly, or they would take the cores from those that work.
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
    """The bundles of a replica's placement group: one GPU each, the first with the actor's own share too."""
    first: dict[str, float] = {"GPU": 1.0, "CPU": plan.num_cpus}
    if plan.memory_bytes is not None:
        first["memory"] = plan.memory_bytes
    return [first, *({"GPU": 1.0} for _ in range(plan.tensor_parallel - 1))]


def plan(
    scorer: ScorerConfig, rewriter: RewriterConfig, cluster: ClusterResources, *, autoscaling: bool = False
) -> Plan:
    """The pools of a run, with what the configuration leaves to the cluster. Errors as in `plan_roles`."""
    roles: dict[str, ReplicaConfig] = {"scorer": scorer}
    if scorer.role != "both":
        roles["rewriter"] = rewriter
    parts = plan_roles(roles, cluster, autoscaling=autoscaling)
    return Plan(parts["scorer"], parts.get("rewriter"))


def plan_roles(
    roles: Mapping[str, ReplicaConfig], cluster: ClusterResources, *, autoscaling: bool = False
) -> dict[str, ReplicaPlan]:
    """Fill in what the configuration leaves to the cluster: GPUs and threads.

    Raises ResourceError where a device is asked for that is not there, or a GPU would be shared by too
    many replicas, and ConfigError where settings contradict each other, or leave to an autoscaling cluster
    what cannot be known before it has grown. Whether all replicas fit is for `check_fits` to say.
    """
    for role, config in roles.items():
        _check_settings(role, config, autoscaling=autoscaling)
    share = _automatic_gpus(roles, cluster)
    drafts = [_draft(config, _gpus(role, config, share)) for role, config in roles.items()]
    placed = _place(drafts, cluster) or [[] for _ in drafts]
    return {
        role: _with_threads(draft, config, counts, cluster)
        for draft, (role, config), counts in zip(drafts, roles.items(), placed, strict=True)
    }


def check_fits(parts: Mapping[str, ReplicaPlan], cluster: ClusterResources) -> None:
    """Raise ResourceError where the cluster, as it is now, cannot hold the fewest replicas of all roles at
    once, one of each at least. A cluster that grows on demand need not be asked."""
    roles = [(role, replace(part, replicas=max(1, part.min_replicas))) for role, part in parts.items()]
    _check_sum(
        " + ".join(f"{role}.replicas={part.replicas} x {_cpus(part.num_cpus)}" for role, part in roles),
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
        " + ".join(f"{role}.replicas={part.replicas} x {_gigabytes(part):g} GB" for role, part in roles),
        sum(part.replicas * _gigabytes(part) for _, part in roles),
        cluster.memory_bytes / GIGABYTE,
        ("GB of memory", "memory_gb"),
    )
    for role, part in roles:
        if not any(_Room(node).take(part) for node in cluster.nodes):
            raise ResourceError(
                f"a replica of the {role} with {asked_for(part)} fits on no single node; "
                f"lower {role}.cpus, {role}.gpus or {role}.memory_gb, or use larger nodes"
            )
    if _place([part for _, part in roles], cluster) is None:
        asked = " + ".join(f"{role}.replicas={part.replicas} x ({asked_for(part)})" for role, part in roles)
        raise ResourceError(
            f"{asked} do not fit on the cluster's {len(cluster.nodes)} nodes together; lower the replicas or "
            "what each asks for, or add nodes"
        )


def _automatic_gpus(roles: Mapping[str, ReplicaConfig], cluster: ClusterResources) -> float:
    """The GPUs of each replica that leaves them to the cluster: 1, or less where they must share."""
    configs = roles.values()
    replicas = sum(config.replicas for config in configs if _automatic(config))
    if replicas == 0 or cluster.gpus == 0:
        return 0.0
    left = cluster.gpus - sum(config.replicas * (config.gpus or 0.0) for config in configs)
    whole = math.floor(left + EPSILON)
    if whole >= replicas:
        return 1.0
    # A replica's part must lie on one GPU: 3 replicas on 2 GPUs get a half each, not two thirds.
    part = 1 / math.ceil(replicas / whole) if whole >= 1 else left / replicas
    share = math.floor(part * 100 + EPSILON) / 100
    if share < MIN_GPU_FRACTION:
        asked = " + ".join(f"{role}.replicas={config.replicas}" for role, config in roles.items())
        raise ResourceError(
            f"{asked} on {cluster.gpus:g} GPUs leave less than {MIN_GPU_FRACTION:g} GPU for each; lower the "
            "replicas, or set device: cpu for one role"
        )
    return share


def _automatic(config: ReplicaConfig) -> bool:
    return (
        config.gpus is None
        and config.device != "cpu"
        and config.tensor_parallel == 1
        and config.engine != "openai"
    )


def _check_settings(role: str, config: ReplicaConfig, *, autoscaling: bool) -> None:
    parts = config.tensor_parallel
    if config.engine == "openai" and (config.gpus or config.device == "cuda" or parts > 1):
        raise ConfigError(
            f"{role}.engine=openai computes elsewhere and takes no GPU here; leave out {role}.gpus, "
            f"{role}.device and {role}.tensor_parallel"
        )
    if parts > 1 and config.engine == "transformers":
        raise ConfigError(
            f"{role}.tensor_parallel={parts}: the engine transformers runs on one GPU; leave it out, or "
            f"choose another {role}.engine"
        )
    if parts > 1 and config.gpus not in (None, parts):
        raise ConfigError(
            f"{role}.gpus={config.gpus:g} contradicts {role}.tensor_parallel={parts}, which takes as many "
            "GPUs; leave gpus out"
        )
    if parts > 1 and config.device == "cpu":
        raise ConfigError(
            f"{role}.device=cpu contradicts {role}.tensor_parallel={parts}; leave one of them out"
        )
    if autoscaling and _automatic(config):
        raise ConfigError(
            f"{role}.gpus: with ray.autoscaling the cluster's GPUs are not known before it has grown; say "
            "how many a replica takes (0 for none)"
        )


def _gpus(role: str, config: ReplicaConfig, share: float) -> float:
    if config.device == "cuda" and config.gpus is None and share == 0:
        raise ResourceError(
            f"{role}.device=cuda, but the cluster has no GPU; set {role}.device to auto or cpu, or add a "
            "GPU node"
        )
    if config.device == "cuda" and config.gpus == 0:
        raise ConfigError(f"{role}.device=cuda contradicts {role}.gpus=0; leave one of them out")
    if config.device == "cpu" and config.gpus:
        raise ConfigError(f"{role}.device=cpu contradicts {role}.gpus={config.gpus:g}; leave one of them out")
    gpus = share if _automatic(config) else config.gpus or 0.0
    if config.tensor_parallel > 1:
        return float(config.tensor_parallel)
    if gpus > 1 and not gpus.is_integer():
        raise ConfigError(
            f"{role}.gpus={gpus:g}: above 1 only whole GPUs can be had; write {math.ceil(gpus)}"
        )
    return gpus


def _draft(config: ReplicaConfig, gpus: float) -> ReplicaPlan:
    """A plan with Ray's own number of threads, which is the right one where the GPU does the work."""
    return ReplicaPlan(
        replicas=config.replicas,
        num_cpus=config.cpus,
        num_gpus=gpus,
        memory_bytes=None if config.memory_gb is None else int(config.memory_gb * GIGABYTE),
        threads=config.threads or max(1, int(config.cpus)),
        device="cuda" if gpus > 0 else "cpu",
        min_replicas=config.replicas if config.min_replicas is None else config.min_replicas,
        tensor_parallel=config.tensor_parallel,
    )


def _with_threads(
    draft: ReplicaPlan, config: ReplicaConfig, counts: Sequence[int], cluster: ClusterResources
) -> ReplicaPlan:
    """Automatic threads on the CPU: a node's cores are shared among the replicas of the same role only,
    since scorers and rewriters mostly take turns. `counts` are the role's replicas on each node, empty if
    unknown."""
    if config.threads is not None or draft.device == "cuda" or not any(counts):
        return draft
    shares = [node.cpus // count for node, count in zip(cluster.nodes, counts, strict=True) if count > 0]
    return replace(draft, threads=max(1, int(min(shares))))


class _Room:
    """What is still free on a node while replicas are placed on it."""

    def __init__(self, node: NodeResources) -> None:
        self.cpus = node.cpus
        self.memory_bytes = node.memory_bytes
        self.gpus = [1.0] * int(node.gpus)

    def take(self, part: ReplicaPlan) -> bool:
        """Place one replica here if it fits."""
        amount = min(part.num_gpus, 1.0)
        wanted = math.ceil(part.num_gpus)
        gpus = [at for at, free in enumerate(self.gpus) if free >= amount - EPSILON][:wanted]
        memory = part.memory_bytes or 0
        if part.num_cpus > self.cpus + EPSILON or memory > self.memory_bytes or len(gpus) < wanted:
            return False
        self.cpus -= part.num_cpus
        self.memory_bytes -= memory
        for at in gpus:
            self.gpus[at] -= amount
        return True


def _place(parts: Sequence[ReplicaPlan], cluster: ClusterResources) -> list[list[int]] | None:
    """How many replicas of each part go to each node, first fit with any part first; None if no order places
    all."""
    for order in permutations(range(len(parts))):
        rooms = [_Room(node) for node in cluster.nodes]
        counts = [[0] * len(rooms) for _ in parts]
        if all(_place_part(parts[at], rooms, counts[at]) for at in order):
            return counts
    return None


def _place_part(part: ReplicaPlan, rooms: list[_Room], counts: list[int]) -> bool:
    for _ in range(part.replicas):
        at = next((at for at, room in enumerate(rooms) if room.take(part)), None)
        if at is None:
            return False
        counts[at] += 1
    return True


def _check_sum(asked: str, total: float, there: float, names: tuple[str, str]) -> None:
    unit, key = names
    if total > there + EPSILON:
        raise ResourceError(
            f"{asked} ask for {total:g} {unit}, the cluster has {there:g}; lower replicas or {key}, "
            "add nodes, or set ray.autoscaling=true where the cluster grows on demand"
        )


def _gigabytes(part: ReplicaPlan) -> float:
    return (part.memory_bytes or 0) / GIGABYTE


def _cpus(count: float) -> str:
    return f"{count:g} CPU" if count == 1 else f"{count:g} CPUs"


def offered(cluster: ClusterResources) -> str:
    """What a cluster has, in words, whether it is taken or not."""
    return f"the {len(cluster.nodes)} nodes have {_cpus(cluster.cpus)} and {cluster.gpus:g} GPU in all"


def asked_for(part: ReplicaPlan) -> str:
    """What one replica asks for, in words."""
    needs = [_cpus(part.num_cpus)]
    if part.num_gpus:
        needs.append(f"{part.num_gpus:g} GPU")
    if part.memory_bytes:
        needs.append(f"{_gigabytes(part):g} GB")
    return ", ".join(needs)
