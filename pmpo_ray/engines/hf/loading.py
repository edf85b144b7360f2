"""Load the model of a replica's configuration, the same for scorers and generators."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import torch

from pmpo_ray.config.engines import ReplicaConfig
from pmpo_ray.engines.hf.devices import choose_device, choose_dtype, context_length, dtype_reason
from pmpo_ray.engines.placement import Placement
from pmpo_ray.engines.weights.folder import ResolvedModel
from pmpo_ray.engines.weights.loading import load_model, load_tokenizer
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.types import EngineInfo

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on its device, with its tokenizer and source. `attention` is the implementation that it was
    loaded with; engines that share the model each set the one they need. `dtype_reason` says why it has its
    number format; `day` is the date in its prompts."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    resolved: ResolvedModel
    attention: str = "sdpa"
    dtype_reason: str = ""
    day: date | None = None

    def info(self, layout: str, fallback: str = "") -> EngineInfo:
        """The description of a replica with this model."""
        return EngineInfo(
            engine="transformers",
            model=self.resolved.name,
            revision=self.resolved.revision,
            parameters=self.model.num_parameters(),
            context_length=context_length(self.model),
            layout=layout,
            dtype=str(self.model.dtype).removeprefix("torch."),
            device=self.model.device.type,
            fallback=fallback,
            dtype_reason=self.dtype_reason,
        )


def load_replica(name: str, config: ReplicaConfig, placement: Placement | None = None) -> LoadedModel:
    """Resolve and load the model `name` as `config` says, on the hardware of `placement` (None: of `config`).

    Raises ModelError if the model is not available, ResourceError if its device is not.
    """
    placement = placement or Placement.configured(config)
    if placement.threads is not None:
        torch.set_num_threads(placement.threads)
    code = config.trust_remote_code
    resolved = resolve_model(name, revision=config.revision, code=code, progress=False)
    device = choose_device(placement.device)
    dtype = choose_dtype(config.dtype, device)
    model = load_model(resolved, dtype=dtype, device=device, trust_remote_code=code)
    tokenizer = load_tokenizer(resolved, trust_remote_code=code)
    reason = dtype_reason(config.dtype, device)
    attention = model.config._attn_implementation
    return LoadedModel(model, tokenizer, resolved, attention, reason, placement.day)
