"""The device and number format that an engine computes with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from pmpo_ray.errors import ResourceError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def choose_device(setting: Literal["auto", "cpu", "cuda"]) -> str:
    """Return "cuda" or "cpu". Raises ResourceError if a GPU is requested and none is visible."""
    if setting == "cuda" and not torch.cuda.is_available():
        raise ResourceError(
            "device: cuda is configured, but this process sees no GPU; check the driver or set device: cpu"
        )
    return "cuda" if setting != "cpu" and torch.cuda.is_available() else "cpu"


def choose_dtype(setting: Literal["auto", "float32", "bfloat16", "float16"], device: str) -> torch.dtype:
    """The torch dtype of a setting; "auto" is bfloat16 if the hardware multiplies it natively, else
    float32."""
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if setting != "auto":
        return named[setting]
    native = (
        torch.cuda.is_bf16_supported() if device == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    return torch.bfloat16 if native else torch.float32


def context_length(model: PreTrainedModel) -> int:
    """The largest number of tokens that the model takes; 2^30 if its configuration names no limit."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", 1 << 30))
