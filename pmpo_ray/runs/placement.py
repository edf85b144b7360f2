"""Where the replicas of a run go, and whether their models fit there.

Invariant: what a cluster that does not grow can never hold is said before any replica is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pmpo_ray.config.engines import ReplicaConfig
from pmpo_ray.config.run import RayConfig, RunConfig
from pmpo_ray.engines.weights.folder import estimate_bytes
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import ResourceError

if TYPE_CHECKING:
    from pmpo_ray.actors.resources import ClusterResources, Plan, ReplicaPlan


Replica = tuple[ReplicaConfig, str]
"""How a role's replicas are set up, and their model."""


def place(config: RunConfig, there: ClusterResources, *, own_machine: bool) -> Plan:
    """What each replica of a run asks for. Errors as in `place_roles`."""
    from pmpo_ray.actors.resources import plan

    roles: dict[str, Replica] = {"scorer": (config.scorer, config.scorer_model)}
    if config.scorer.role != "both":
        roles["rewriter"] = (config.rewriter, config.rewriter_model)
    placed = plan(config.scorer, config.rewriter, there, autoscaling=config.ray.autoscaling)
    _check(placed.roles, roles, config.ray, there, own_machine=own_machine)
    return placed


def place_roles(
    roles: Mapping[str, Replica], settings: RayConfig, there: ClusterResources, *, own_machine: bool
) -> dict[str, ReplicaPlan]:
    """What the replicas of each role ask for. Raises ResourceError for more than there is, where that cannot
    grow, and ConfigError for settings that contradict each other. On a machine of the run's own the models
    are brought here, too."""
    from pmpo_ray.actors.resources import plan_roles

    configs = {role: config for role, (config, _) in roles.items()}
    placed = plan_roles(configs, there, autoscaling=settings.autoscaling)
    _check(placed, roles, settings, there, own_machine=own_machine)
    return placed


def _check(
    placed: Mapping[str, ReplicaPlan],
    roles: Mapping[str, Replica],
    settings: RayConfig,
    there: ClusterResources,
    *,
    own_machine: bool,
) -> None:
    from pmpo_ray.actors.resources import check_fits

    if not settings.autoscaling:
        check_fits(placed, there)
    if own_machine:
        _bring_models(roles, there.memory_bytes)


def _bring_models(roles: Mapping[str, Replica], memory: int) -> None:
    """Download and convert the models here, where the user sees the progress, and check that the replicas'
    weights fit into `memory` bytes. Replicas of this machine then find them in the cache."""
    needed = 0
    for replica, model in roles.values():
        if replica.has_custom_engine or replica.engine in ("simulated", "openai"):
            continue
        resolved = resolve_model(model, revision=replica.revision, code=replica.trust_remote_code)
        needed += replica.replicas * estimate_bytes(resolved.path, 4 if replica.dtype == "float32" else 2)
    if needed > memory:
        counted = " and ".join(f"{replica.replicas} {role}" for role, (replica, _) in roles.items())
        raise ResourceError(
            f"the weights of {counted} replicas take {needed / 1e9:.1f} GB, this machine offers "
            f"{memory / 1e9:.1f} GB; lower {' or '.join(f'{role}.replicas' for role in roles)}, or choose a "
            "smaller model"
        )
