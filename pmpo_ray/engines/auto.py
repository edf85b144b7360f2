"""The choice of an engine where the configuration leaves it open (`engine: auto`).

Invariant: the choice depends only on the configuration, the model's size and the device of this process, so
that replicas on equal machines choose the same engine.

transformers scores fastest: it computes shared parts of prompts only once. vLLM is for models that are split
over several GPUs or leave too little room on one, which transformers cannot serve, and for rewriting on a
GPU, where it batches requests as they arrive.
"""

from __future__ import annotations

import importlib.util
from typing import Literal, cast

from pmpo_ray.config.engines import ReplicaConfig, RewriterConfig
from pmpo_ray.engines.placement import Placement

EngineKind = Literal["transformers", "vllm", "openai", "simulated", "custom"]

LARGEST_SHARE = 0.7
"""The largest share of a replica's part of a GPU that weights may take and still leave room to score
trees."""


def choose_engine(config: ReplicaConfig, model: str, placement: Placement) -> EngineKind:
    """The engine of a replica in this process. Raises ModelError if the choice depends on the model's size
    and the model is not available."""
    if config.has_custom_engine:
        return "custom"
    if config.engine != "auto":
        return cast(EngineKind, config.engine)
    if config.tensor_parallel > 1:
        return "vllm"
    if not vllm_installed() or not _on_gpu(placement):
        return "transformers"
    if isinstance(config, RewriterConfig) or not _fits_one_gpu(config, model, placement):
        return "vllm"
    return "transformers"


def vllm_installed() -> bool:
    return importlib.util.find_spec("vllm") is not None


def _on_gpu(placement: Placement) -> bool:
    from pmpo_ray.engines.hf.devices import choose_device

    return choose_device(placement.device) == "cuda"


def _fits_one_gpu(config: ReplicaConfig, model: str, placement: Placement) -> bool:
    import torch

    from pmpo_ray.engines.hf.devices import choose_dtype
    from pmpo_ray.engines.weights.folder import estimate_bytes
    from pmpo_ray.engines.weights.resolve import resolve_model

    resolved = resolve_model(model, revision=config.revision, code=config.trust_remote_code, progress=False)
    weights = estimate_bytes(resolved.path, choose_dtype(config.dtype, "cuda").itemsize)
    _, total = torch.cuda.mem_get_info()
    return weights <= LARGEST_SHARE * total * min(1.0, placement.gpus or 1.0)
