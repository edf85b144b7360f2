"""The placement of a run's replicas, and a check that their models fit.

Invariant: a request that a cluster of fixed size can never meet raises an error before any replica starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pmpo_ray.config.engines import ReplicaConfig
from pmpo_ray.config.run import RayConfig, RunConfig
from pmpo_ray.engines.hf.processor import bfloat16_extension
from pmpo_ray.engines.weights.folder import estimate_bytes
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import ResourceError
from pmpo_ray.runs.announcements import announce
from pmpo_ray.store import ClusterInfo

if TYPE_CHECKING:
    from pmpo_ray.actors.resources import ClusterResources, Plan, ReplicaPlan


Replica = tuple[ReplicaConfig, str]
"""The configuration of a role's replicas, and their model."""


@contextmanager
def planned_cluster(config: RunConfig) -> Iterator[tuple[ClusterInfo, Plan]]:
    """A connection to Ray, with the place of every replica planned. Errors as in `place`."""
    from pmpo_ray.actors.cluster import LOCAL, connected, connected_cluster

    with connected(config.ray) as address:
        announce(config, os.environ, evaluates=False, local=address == LOCAL)
        offered = connected_cluster()
        cluster = ClusterInfo(address, len(offered.nodes), offered.cpus, offered.gpus)
        yield cluster, place(config, offered, local=address == LOCAL)


def place(config: RunConfig, cluster: ClusterResources, *, local: bool) -> Plan:
    """The resources of each replica of a run. `local` and errors as in `place_roles`."""
    from pmpo_ray.actors.planning import plan

    roles: dict[str, Replica] = {"scorer": (config.scorer, config.scorer_model)}
    if config.scorer.role != "both":
        roles["rewriter"] = (config.rewriter, config.rewriter_model)
    run_plan = plan(config.scorer, config.rewriter, cluster, autoscaling=config.ray.autoscaling)
    _check(run_plan.roles, roles, config.ray, cluster, local=local)
    return run_plan


def place_roles(
    roles: Mapping[str, Replica], settings: RayConfig, cluster: ClusterResources, *, local: bool
) -> dict[str, ReplicaPlan]:
    """The resources of each role's replicas. With `local` the replicas run on this machine, and their models
    are downloaded here.

    Raises ResourceError if the replicas do not fit on a cluster of fixed size, and ConfigError if settings
    contradict each other.
    """
    from pmpo_ray.actors.planning import plan_roles

    configs = {role: config for role, (config, _) in roles.items()}
    plans = plan_roles(configs, cluster, autoscaling=settings.autoscaling)
    _check(plans, roles, settings, cluster, local=local)
    return plans


def _check(
    plans: Mapping[str, ReplicaPlan],
    roles: Mapping[str, Replica],
    settings: RayConfig,
    cluster: ClusterResources,
    *,
    local: bool,
) -> None:
    from pmpo_ray.actors.packing import check_fits

    if not settings.autoscaling:
        check_fits(plans, cluster)
    if local:
        _download_models(plans, roles, cluster.memory_bytes)


def _download_models(plans: Mapping[str, ReplicaPlan], roles: Mapping[str, Replica], memory: int) -> None:
    """Download and convert the models in this process, where the user sees the progress, and check that the
    replicas' weights fit into `memory` bytes. The replicas then find the models in the cache."""
    needed = 0
    for role, (replica, model) in roles.items():
        if replica.has_custom_engine or replica.engine in ("simulated", "openai"):
            continue
        resolved = resolve_model(model, revision=replica.revision, code=replica.trust_remote_code)
        width = _bytes_per_number(replica.dtype, plans[role].device)
        needed += replica.replicas * estimate_bytes(resolved.path, width)
    if needed > memory:
        counted = " and ".join(f"{replica.replicas} {role}" for role, (replica, _) in roles.items())
        raise ResourceError(
            f"the weights of {counted} replicas take {needed / 1e9:.1f} GB, this machine offers "
            f"{memory / 1e9:.1f} GB; lower {' or '.join(f'{role}.replicas' for role in roles)}, or choose a "
            "smaller model"
        )


def _bytes_per_number(dtype: str, device: str) -> int:
    """The bytes that a number of the weights takes on this machine."""
    wide = dtype == "auto" and device == "cpu" and bfloat16_extension() is None
    return 4 if wide or dtype == "float32" else 2
