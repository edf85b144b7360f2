"""The device and number format that an engine computes with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from pmpo_ray.engines.hf.processor import bfloat16_extension
from pmpo_ray.errors import ResourceError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def choose_device(setting: Literal["auto", "cpu", "cuda"]) -> str:
    """Return "cuda" or "cpu". Raises ResourceError if a GPU is requested and none is visible."""
    if setting == "cuda" and not torch.cuda.is_available():
        raise ResourceError(
            "device: cuda is configured, but this process sees no GPU; check the driver or set device: cpu"
        )
    return "cuda" if setting != "cpu" and torch.cuda.is_available() else "cpu"


def choose_dtype(setting: Dtype, device: str) -> torch.dtype:
    """The torch dtype of a setting; "auto" is bfloat16 if the hardware multiplies it natively, else
    float32."""
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return named[_automatic(device)[0] if setting == "auto" else setting]


def dtype_reason(setting: Dtype, device: str) -> str:
    """The reason why `choose_dtype` chooses what it does."""
    return _automatic(device)[1] if setting == "auto" else "configured"


def _automatic(device: str) -> tuple[Dtype, str]:
    """The number format that "auto" means on a device, and the reason."""
    if device == "cuda":
        # Without this argument torch counts GPUs that only emulate it.
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "the GPU multiplies it"
        return "float32", "the GPU does not multiply bfloat16"
    extension = bfloat16_extension()
    if extension is None:
        return "float32", "the processor does not multiply bfloat16"
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "float32", f"torch does not use the processor's {extension}"
    return "bfloat16", f"the processor has {extension}"


def context_length(model: PreTrainedModel) -> int:
    """The largest number of tokens that the model takes; 2^30 if its configuration names no limit."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", 1 << 30))
