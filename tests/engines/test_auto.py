"""Which engine `auto` means."""

from __future__ import annotations

import pytest
import torch

from pmpo_ray.config.engines import DEFAULT_MODEL, ReplicaConfig, RewriterConfig, ScorerConfig
from pmpo_ray.engines.auto import choose_engine
from pmpo_ray.engines.factory import create_generator, create_scorer
from pmpo_ray.engines.placement import Placement
from pmpo_ray.errors import ConfigError


def chosen(config: ReplicaConfig, model: str) -> str:
    return choose_engine(config, model, Placement.configured(config))


def test_a_named_engine_is_taken() -> None:
    assert chosen(ScorerConfig(engine="openai"), "any") == "openai"
    assert chosen(RewriterConfig(engine="transformers", tensor_parallel=2), "any") == "transformers"


def test_a_model_that_is_split_over_gpus_needs_vllm() -> None:
    assert chosen(ScorerConfig(tensor_parallel=2), "any") == "vllm"
    assert chosen(RewriterConfig(tensor_parallel=4), "any") == "vllm"


def test_transformers_computes_on_cpus() -> None:
    assert chosen(ScorerConfig(device="cpu"), DEFAULT_MODEL) == "transformers"
    assert chosen(RewriterConfig(device="cpu"), DEFAULT_MODEL) == "transformers"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_small_model_is_scored_by_transformers() -> None:
    assert chosen(ScorerConfig(), DEFAULT_MODEL) == "transformers"


def test_engines_that_need_an_event_loop_are_not_made_without_one() -> None:
    with pytest.raises(ConfigError, match="open_scorer"):
        create_scorer(ScorerConfig(engine="vllm"), DEFAULT_MODEL)
    with pytest.raises(ConfigError, match="open_generator"):
        create_generator(RewriterConfig(engine="openai"), DEFAULT_MODEL)
