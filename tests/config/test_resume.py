"""Differences between configurations, and the keys that may change when a run is continued."""

from __future__ import annotations

from pmpo_ray.config.keys import key_paths
from pmpo_ray.config.loading import config_from_mapping
from pmpo_ray.config.resume import CHANGEABLE, differences
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.search import SearchConfig
from pmpo_ray.config.tasks import TaskConfig


def test_freely_named_settings_differ_as_a_whole() -> None:
    old = config_from_mapping({"rewriter": {"endpoint": {"parameters": {"top_k": 3}}}}, "here")
    new = config_from_mapping(
        {"scorer": {"vllm": {"options": {"seed": 1}}}, "rewriter": {"endpoint": {"parameters": {"x": 3}}}},
        "here",
    )
    assert differences(old, new) == ("scorer.vllm.options", "rewriter.endpoint.parameters")
    assert differences(new, RunConfig()) == ("scorer.vllm.options", "rewriter.endpoint.parameters")


def test_differences_are_key_paths() -> None:
    old = RunConfig(tasks=(TaskConfig(name="a", path="x", instruction="x"),))
    new = RunConfig(
        tasks=(TaskConfig(name="a", path="y", instruction="y"), TaskConfig(name="b")),
        search=SearchConfig(beta=2.0, rounds=99),
        seed=1,
    )
    assert differences(old, new) == ("tasks.0.instruction", "tasks.1", "search.beta", "seed")
    assert differences(old, old) == ()


def test_the_keys_that_may_change_are_marked_at_their_fields() -> None:
    machine = ("replicas", "min_replicas", "tensor_parallel", "cpus", "gpus", "memory_gb", "threads")
    requests = ("url", "api_key_env", "concurrency", "retries", "timeout")
    replica = (*machine, "vllm.kv_cache_gb", *(f"endpoint.{key}" for key in requests))
    stopping = ("rounds", "patience", "target_loss", "max_tokens", "max_seconds")
    assert set(CHANGEABLE) == {
        *(
            "run_dir",
            "data_dir",
            "tasks.path",
            "tasks.test_path",
            "ray",
            "tracking",
            "budget",
            "scorer.working_memory_gb",
        ),
        *(f"{role}.{key}" for role in ("scorer", "rewriter") for key in replica),
        *(f"search.{key}" for key in stopping),
    }
    assert set(CHANGEABLE) < {path.replace(".N.", ".") for path in key_paths()}
    assert all(CHANGEABLE.values())


def test_keys_that_may_change_do_not_count_as_differences() -> None:
    machine = {"replicas": 2, "cpus": 2, "gpus": 1, "memory_gb": 3, "threads": 4}
    new = config_from_mapping(
        {
            "run_dir": "r",
            "data_dir": "d",
            "tracking": {"mlflow": True, "wandb": {"project": "other"}},
            "ray": {"address": "auto", "num_cpus": 3, "num_gpus": 1, "start_timeout": 1},
            "scorer": machine,
            "rewriter": {**machine, "endpoint": {"url": "http://server/v1"}},
            "search": {"rounds": 1, "patience": 1, "target_loss": 0.5, "max_tokens": 9, "max_seconds": 9},
        },
        "here",
    )
    assert differences(RunConfig(), new) == ()
    evaluated = config_from_mapping(
        {"evaluation": {"judge": {"endpoint": {"url": "http://server/v1"}}}}, "here"
    )
    assert differences(RunConfig(), evaluated) == ("evaluation.judge.endpoint.url",)
