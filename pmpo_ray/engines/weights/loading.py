"""Models and tokenizers loaded from a local folder.

Invariants: nothing is fetched; a model whose weights are incomplete is refused, never filled up with random
numbers; code that comes with a model runs only under trust_remote_code.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pmpo_ray.engines.weights.folder import ResolvedModel, safetensors_files
from pmpo_ray.engines.weights.quiet import named_tokenizer_errors, quiet_transformers
from pmpo_ray.errors import ModelError
from pmpo_ray.text import error_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_model(
    resolved: ResolvedModel, *, dtype: torch.dtype, device: str, trust_remote_code: bool
) -> PreTrainedModel:
    """The causal language model in evaluation mode on `device`, without gradients, with sdpa attention.

    Raises ModelError if the folder holds no such model, needs custom code, lacks weights, or doesn't fit.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(resolved.path),
                dtype=dtype,
                attn_implementation="sdpa",
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                use_safetensors=True if safetensors_files(resolved.path) else None,
                output_loading_info=True,
            )
    except (ValueError, KeyError, TypeError, ImportError, OSError, RuntimeError, SafetensorError) as error:
        raise _load_error(resolved, "model", error) from error
    model, report = loaded
    # Missing and misshapen weights are filled with random numbers, with a warning at most.
    missing = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
    if missing:
        raise ModelError(
            f"model {resolved.name!r}: {resolved.path} lacks {len(missing)} of the parameters that its "
            f"config.json requires (such as {error_line(missing[0])}); get the complete model"
        )
    return placed_on(device, model, resolved)


def placed_on(device: str, model: Any, resolved: ResolvedModel) -> PreTrainedModel:
    """The model on `device`, in evaluation mode and without gradients. Raises ModelError if it does not
    fit there."""
    try:
        placed: PreTrainedModel = model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"model {resolved.name!r} cannot be put on device {device!r}: {error_line(error)}; "
            "use a smaller model or another device"
        ) from error
    placed.train(False)
    placed.requires_grad_(False)
    return placed


def load_tokenizer(resolved: ResolvedModel, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises ModelError if the folder holds none or it needs custom code.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    try:
        with quiet_transformers(), named_tokenizer_errors():
            tokenizer = AutoTokenizer.from_pretrained(
                str(resolved.path), trust_remote_code=trust_remote_code, local_files_only=True
            )
    except (ValueError, KeyError, TypeError, ImportError, OSError, RuntimeError) as error:
        raise _load_error(resolved, "tokenizer", error) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ModelError(
            f"model {resolved.name!r}: {resolved.path} holds no tokenizer; get the complete model"
        )
    return tokenizer


def _load_error(resolved: ResolvedModel, what: str, error: Exception) -> ModelError:
    if "trust_remote_code" in str(error):
        return ModelError(
            f"model {resolved.name!r} needs Python code that comes with it; if you trust its authors, "
            "set `scorer.trust_remote_code: true` (for a rewriter, `rewriter.trust_remote_code: true`)"
        )
    return ModelError(
        f"model {resolved.name!r}: the {what} in {resolved.path} cannot be loaded: {error_line(error)}; "
        "use a causal language model that the installed transformers knows, and a complete folder of it"
    )
