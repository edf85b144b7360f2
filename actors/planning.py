"""From the configuration to the resources of each actor.

Invariants: pure; a plan never requests a GPU that the cluster lacks; a request that cannot be met raises an
error of one line that names the request, the available resources and what to change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pmpo_ray.actors.packing import EPSILON, pack
from pmpo_ray.actors.resources import GIGABYTE, ClusterResources, Plan, ReplicaPlan
from pmpo_ray.config.engines import ReplicaConfig, RewriterConfig, ScorerConfig
from pmpo_ray.errors import ConfigError, ResourceError

MIN_GPU_FRACTION = 0.05


def plan(
    scorer: ScorerConfig, rewriter: RewriterConfig, cluster: ClusterResources, *, autoscaling: bool = False
) -> Plan:
    """The pools of a run, with automatic settings filled in. Errors as in `plan_roles`."""
    roles: dict[str, ReplicaConfig] = {"scorer": scorer}
    if scorer.role != "both":
        roles["rewriter"] = rewriter
    parts = plan_roles(roles, cluster, autoscaling=autoscaling)
    return Plan(parts["scorer"], parts.get("rewriter"))


def plan_roles(
    roles: Mapping[str, ReplicaConfig], cluster: ClusterResources, *, autoscaling: bool = False
) -> dict[str, ReplicaPlan]:
    """The plan of each role, with automatic GPUs and threads filled in from the cluster.

    Raises ResourceError if a requested device is not available or too many replicas would share a GPU, and
    ConfigError if settings contradict each other or an autoscaling cluster would have to know its GPUs before
    it has grown. Does not check that all replicas fit (see `packing.check_fits`).
    """
    for role, config in roles.items():
        _check_settings(role, config, autoscaling=autoscaling)
    share = _automatic_gpus(roles, cluster)
    drafts = [_draft(config, _gpus(role, config, share)) for role, config in roles.items()]
    counts = pack(drafts, cluster) or [[] for _ in drafts]
    return {
        role: _with_threads(draft, config, on_nodes, cluster)
        for draft, (role, config), on_nodes in zip(drafts, roles.items(), counts, strict=True)
    }


def _automatic_gpus(roles: Mapping[str, ReplicaConfig], cluster: ClusterResources) -> float:
    """The GPUs of each replica with an automatic number of GPUs: 1, or a share if there are too few."""
    configs = roles.values()
    replicas = sum(config.replicas for config in configs if _automatic(config))
    if replicas == 0 or cluster.gpus == 0:
        return 0.0
    left = cluster.gpus - sum(config.replicas * (config.gpus or 0.0) for config in configs)
    whole = math.floor(left + EPSILON)
    if whole >= replicas:
        return 1.0
    # A replica's share must lie on one GPU: 3 replicas on 2 GPUs get a half each, not two thirds.
    part = 1 / math.ceil(replicas / whole) if whole >= 1 else left / replicas
    share = math.floor(part * 100 + EPSILON) / 100
    if share < MIN_GPU_FRACTION:
        requested = " + ".join(f"{role}.replicas={config.replicas}" for role, config in roles.items())
        raise ResourceError(
            f"{requested} on {cluster.gpus:g} GPUs leave less than {MIN_GPU_FRACTION:g} GPU for each; lower "
            "the replicas, or set device: cpu for one role"
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
            f"{role}.engine=openai computes elsewhere and takes no GPU here; remove {role}.gpus, "
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
            f"{role}.gpus: with ray.autoscaling the cluster's GPUs are not known before it has grown; set "
            "the number for each replica (0 for none)"
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
            f"{role}.gpus={gpus:g}: above 1 only whole GPUs can be requested; write {math.ceil(gpus)}"
        )
    return gpus


def _draft(config: ReplicaConfig, gpus: float) -> ReplicaPlan:
    """A plan with Ray's default number of threads, which is right if a GPU does the work."""
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
    """Fill in automatic threads on the CPU: the replicas of one role share a node's cores, and roles do not
    count against each other, since scorers and rewriters mostly take turns. `counts` are the role's replicas
    on each node, empty if unknown."""
    if config.threads is not None or draft.device == "cuda" or not any(counts):
        return draft
    shares = [node.cpus // count for node, count in zip(cluster.nodes, counts, strict=True) if count > 0]
    return replace(draft, threads=max(1, int(min(shares))))
