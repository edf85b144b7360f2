"""Where the replicas of a run go, and whether their models fit there.

Invariant: what a cluster that does not grow can never hold is said before any replica is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmpo_ray.config import ReplicaConfig, RunConfig
from pmpo_ray.engines.models import estimate_bytes, resolve_model
from pmpo_ray.errors import ResourceError

if TYPE_CHECKING:
    from actors.resources import ClusterResources, Plan


def place(config: RunConfig, there: ClusterResources, *, own_machine: bool) -> Plan:
    """What each replica asks for. Raises ResourceError for more than there is, where that cannot grow, and
    ConfigError for settings that contradict each other. On a machine of the run's own the models are brought
    here, too."""
    from actors.resources import check_fits, plan

    placed = plan(config.scorer, config.rewriter, there, autoscaling=config.ray.autoscaling)
    if not config.ray.autoscaling:
        check_fits(placed, there)
    if own_machine:
        _bring_models(config, there.memory_bytes)
    return placed


def scorer_model(config: RunConfig) -> str:
    """The model that is optimised for."""
    return config.scorer.model or config.model


def rewriter_model(config: RunConfig) -> str:
    """The model that writes instructions."""
    return scorer_model(config) if config.scorer.role == "both" else config.rewriter.model or config.model


def _bring_models(config: RunConfig, memory: int) -> None:
    """Download and convert the models here, where the user sees the progress, and check that the replicas'
    weights fit into `memory` bytes. Replicas of this machine then find them in the cache."""
    roles: list[tuple[ReplicaConfig, str]] = [(config.scorer, scorer_model(config))]
    if config.scorer.role != "both":
        roles.append((config.rewriter, rewriter_model(config)))
    needed = 0
    for replica, model in roles:
        if replica.engine in ("simulated", "openai"):
            continue
        resolved = resolve_model(model, revision=replica.revision, code=replica.trust_remote_code)
        needed += replica.replicas * estimate_bytes(resolved, 4 if replica.dtype == "float32" else 2)
    if needed > memory:
        raise ResourceError(
            f"the weights of {config.scorer.replicas} scorer and {config.rewriter.replicas} rewriter "
            f"replicas take {needed / 1e9:.1f} GB, this machine offers {memory / 1e9:.1f} GB; lower "
            "scorer.replicas or rewriter.replicas, or choose a smaller model"
        )
