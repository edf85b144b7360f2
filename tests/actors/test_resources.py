"""From the configuration to actor options."""

from __future__ import annotations

import pytest

from pmpo_ray.actors.packing import check_fits
from pmpo_ray.actors.planning import plan
from pmpo_ray.actors.resources import (
    ClusterResources,
    NodeResources,
    Plan,
    actor_options,
    bundles,
)
from pmpo_ray.config.engines import RewriterConfig, ScorerConfig
from pmpo_ray.errors import ConfigError, ResourceError

GB = 10**9


def cluster(*nodes: tuple[float, float]) -> ClusterResources:
    return ClusterResources(tuple(NodeResources(cpus, gpus, 16 * GB) for cpus, gpus in nodes))


def planned(
    available: ClusterResources,
    scorer: dict[str, object] | None = None,
    rewriter: dict[str, object] | None = None,
) -> Plan:
    return plan(
        ScorerConfig.model_validate(scorer or {}), RewriterConfig.model_validate(rewriter or {}), available
    )


def test_without_gpus_everything_runs_on_the_cpu() -> None:
    result = planned(cluster((2, 0)))
    for part in (result.scorer, result.rewriter):
        assert (part.num_gpus, part.device, part.num_cpus, part.memory_bytes) == (0, "cpu", 1, None)


def test_a_scorer_and_a_rewriter_on_two_cores_take_turns_with_two_threads_each() -> None:
    result = planned(cluster((2, 0)))
    assert (result.scorer.threads, result.rewriter.threads) == (2, 2)


@pytest.mark.parametrize(("replicas", "threads"), [(1, 8), (2, 4), (3, 2), (6, 1)])
def test_replicas_of_a_role_share_the_cores_of_their_node(replicas: int, threads: int) -> None:
    assert planned(cluster((8, 0)), {"replicas": replicas}).scorer.threads == threads


def test_threads_follow_the_fullest_node() -> None:
    result = planned(cluster((8, 0), (4, 0)), {"replicas": 3, "cpus": 4})
    # Two on the node with 8 cores, one on the other.
    assert result.scorer.threads == 4


def test_configured_threads_are_kept() -> None:
    assert planned(cluster((8, 0)), {"threads": 3}).scorer.threads == 3


@pytest.mark.parametrize(
    ("gpus", "scorers", "rewriters", "share"),
    [(4, 2, 2, 1.0), (8, 1, 1, 1.0), (1, 1, 1, 0.5), (2, 2, 1, 0.5), (1, 2, 1, 0.33), (1, 19, 1, 0.05)],
)
def test_gpus_are_whole_if_enough_and_shared_equally_if_not(
    gpus: int, scorers: int, rewriters: int, share: float
) -> None:
    available = cluster((64, gpus))
    result = planned(available, {"replicas": scorers}, {"replicas": rewriters})
    assert (result.scorer.num_gpus, result.rewriter.num_gpus) == (share, share)
    assert (result.scorer.device, result.rewriter.device) == ("cuda", "cuda")
    check_fits(result.roles, available)


def test_configured_gpus_of_one_role_leave_the_rest_to_the_other() -> None:
    result = planned(cluster((16, 3)), {"gpus": 2}, {"replicas": 2})
    assert (result.scorer.num_gpus, result.rewriter.num_gpus) == (2, 0.5)


def test_a_role_on_the_cpu_takes_no_gpu() -> None:
    result = planned(cluster((8, 1)), {}, {"device": "cpu"})
    assert (result.scorer.num_gpus, result.rewriter.num_gpus) == (1, 0)
    assert result.rewriter.device == "cpu"


def test_too_small_a_share_of_a_gpu_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"scorer\.replicas=20 \+ rewriter\.replicas=1 .*0\.05"):
        planned(cluster((64, 1)), {"replicas": 20})


def test_cuda_without_a_gpu_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"rewriter\.device=cuda, but the cluster has no GPU"):
        planned(cluster((2, 0)), {}, {"device": "cuda"})


@pytest.mark.parametrize(
    "scorer", [{"device": "cuda", "gpus": 0}, {"device": "cpu", "gpus": 1}, {"gpus": 1.5}]
)
def test_contradicting_settings_are_refused(scorer: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"scorer\.gpus"):
        planned(cluster((8, 2)), scorer)


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (
            {"replicas": 8},
            r"scorer\.replicas=8 x 1 CPU \+ rewriter\.replicas=1 x 1 CPU need 9 CPUs, the cluster has 4;",
        ),
        ({"gpus": 3}, r"scorer\.replicas=1 x 3 GPU .* need 3 GPUs, the cluster has 0;"),
        ({"memory_gb": 40}, r"scorer\.replicas=1 x 40 GB .* need 40 GB of memory, the cluster has 32;"),
        ({"cpus": 3}, r"scorer with 3 CPUs fits on no single node; lower scorer\.cpus"),
        ({"memory_gb": 20}, r"scorer with 1 CPU, 20 GB fits on no single node"),
        ({"cpus": 1.5, "replicas": 2}, r"do not fit on the cluster's 2 nodes at the same time"),
    ],
)
def test_more_than_the_cluster_has_is_an_error_of_one_line(scorer: dict[str, object], message: str) -> None:
    available = cluster((2, 0), (2, 0))
    result = planned(available, scorer)
    with pytest.raises(ResourceError, match=message) as refused:
        check_fits(result.roles, available)
    assert "\n" not in str(refused.value)


def test_what_fits_is_accepted_whichever_role_must_go_first() -> None:
    available = cluster((2, 0), (3, 0))
    check_fits(planned(available, {"replicas": 2}, {"cpus": 3}).roles, available)
    check_fits(planned(available, {"cpus": 3}, {"replicas": 2}).roles, available)


def test_a_plan_becomes_actor_options() -> None:
    result = planned(cluster((4, 0)), {"memory_gb": 2, "threads": 3})
    options = actor_options(result.scorer)
    assert (options["num_cpus"], options["num_gpus"], options["memory"]) == (1, 0, 2 * GB)
    assert (options["max_restarts"], options["max_task_retries"]) == (0, 0)
    assert options["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "3"


def test_only_live_nodes_count() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0, "memory": 1e9, "node:10.0.0.1": 1.0}},
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": False, "Resources": {}},
    ]
    available = ClusterResources.of_nodes(nodes)
    assert (available.cpus, available.gpus, available.memory_bytes, len(available.nodes)) == (6, 1, GB, 2)


def test_an_elastic_role_needs_room_for_its_minimum_of_replicas_only() -> None:
    available = cluster((4, 0))
    elastic = planned(available, {"replicas": 100, "min_replicas": 0}, {"replicas": 100, "min_replicas": 3})
    assert (elastic.scorer.min_replicas, elastic.rewriter.min_replicas) == (0, 3)
    check_fits(elastic.roles, available)
    with pytest.raises(ResourceError, match=r"need 5 CPUs, the cluster has 4; .*ray\.autoscaling=true"):
        check_fits(planned(available, {"replicas": 9, "min_replicas": 0}, {"replicas": 4}).roles, available)


def test_on_an_autoscaling_cluster_gpus_have_to_be_given() -> None:
    nothing = cluster()
    with pytest.raises(ConfigError, match=r"scorer\.gpus: with ray\.autoscaling .*0 for none"):
        plan(ScorerConfig(), RewriterConfig(gpus=1), nothing, autoscaling=True)
    result = plan(ScorerConfig(gpus=0.5), RewriterConfig(gpus=0), nothing, autoscaling=True)
    assert (result.scorer.num_gpus, result.scorer.device) == (0.5, "cuda")
    assert (result.rewriter.num_gpus, result.rewriter.device) == (0, "cpu")


def test_a_split_replica_takes_a_bundle_for_each_gpu() -> None:
    available = cluster((8, 4))
    part = planned(available, {"engine": "simulated", "tensor_parallel": 4, "cpus": 2, "memory_gb": 3}).scorer
    assert (part.num_gpus, part.tensor_parallel, part.device) == (4, 4, "cuda")
    assert bundles(part) == [{"GPU": 1, "CPU": 2, "memory": 3 * GB}, {"GPU": 1}, {"GPU": 1}, {"GPU": 1}]
    # Its GPUs are for the engine's workers, which live in the same placement group.
    assert actor_options(part)["num_gpus"] == 0


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"engine": "transformers", "tensor_parallel": 2}, "transformers runs on one GPU"),
        ({"engine": "simulated", "tensor_parallel": 2, "gpus": 1}, "gpus=1 contradicts"),
        ({"engine": "simulated", "tensor_parallel": 2, "device": "cpu"}, "device=cpu contradicts"),
    ],
)
def test_contradictions_of_tensor_parallelism_are_named(section: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        planned(cluster((8, 4)), section)


def test_a_client_of_an_endpoint_takes_no_gpu() -> None:
    available = cluster((8, 1))
    planned_ = planned(available, {}, {"engine": "openai"})
    assert planned_.rewriter is not None
    assert planned_.rewriter.num_gpus == 0
    # The whole GPU is left to the scorer.
    assert planned_.scorer.num_gpus == 1


@pytest.mark.parametrize("section", [{"gpus": 1}, {"device": "cuda"}, {"tensor_parallel": 2}])
def test_a_gpu_for_an_endpoint_is_refused(section: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"rewriter\.engine=openai computes elsewhere"):
        planned(cluster((8, 4)), {}, {"engine": "openai", **section})


def test_a_client_of_an_endpoint_needs_no_gpus_named_on_an_autoscaling_cluster() -> None:
    made = plan(ScorerConfig(gpus=1), RewriterConfig(engine="openai"), cluster((2, 0)), autoscaling=True)
    assert made.rewriter is not None
    assert made.rewriter.num_gpus == 0


def test_the_minimum_of_replicas_is_not_above_the_maximum() -> None:
    with pytest.raises(ValueError, match="min_replicas=3 is more than replicas=2"):
        ScorerConfig(replicas=2, min_replicas=3)
