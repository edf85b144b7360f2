"""GGUF files as model folders: the weights unpacked to bfloat16 safetensors, the tokenizer rebuilt.

Invariant: a converted tokenizer splits text as the GGUF specifies, or the conversion is refused.
"""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import Progress

from pmpo_ray.engines.weights.cache import cached_model, loading_bar
from pmpo_ray.engines.weights.checksums import plain_sha256
from pmpo_ray.engines.weights.quiet import named_tokenizer_errors, quiet_transformers
from pmpo_ray.errors import ModelError
from pmpo_ray.text import error_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# llama.cpp's names of the pre-tokenizers that split off every digit and then split like GPT-2, and of those
# that only split like GPT-2. transformers gives both groups the GPT-2 split.
_DIGIT_SPLITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
_GPT2_SPLITS = frozenset({"gpt-2", "mpt", "olmo", "jais"})


def from_gguf(path: Path, *, progress: bool) -> tuple[Path, str]:
    """The folder converted from the GGUF file at `path`, and the revision of the model in it.

    Raises ModelError if the file can't be read, is no GGUF of a supported architecture, has a tokenizer that
    can't be rebuilt exactly, or changes while it is converted.
    """
    sha256 = _sha256(path)

    def build(work: Path) -> Path:
        with loading_bar(f"{path.name}, {path.stat().st_size / 1e6:.0f} MB", shown=progress) as bar:
            # Alone in a folder: other files next to a GGUF must not affect how it is read.
            alone = work / "model.gguf"
            alone.symlink_to(path.resolve())
            folder = convert_gguf(alone, str(path), work, bar)
            if _sha256(path) != sha256:
                raise ModelError(
                    f"{path}: it changed while it was converted; start again with the whole file"
                )
            return folder

    return cached_model(path.stem, sha256, build)


def _sha256(path: Path) -> str:
    try:
        return plain_sha256(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}; check the file") from error


def convert_gguf(gguf: Path, name: str, work: Path, bar: Progress) -> Path:
    """Write the model of `gguf`, unpacked to bfloat16, as a safetensors folder in `work`.

    Raises ModelError if the file is no GGUF of a supported architecture, or has a tokenizer that can't be
    rebuilt exactly.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    bar.add_task(f"converting {name}", total=None)
    metadata = _metadata(gguf, name)
    folder = work / "model"
    # One of the two GGUF readers in transformers draws a bar on stderr that no setting turns off.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        try:
            with named_tokenizer_errors():
                tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
            model: Any = AutoModelForCausalLM.from_pretrained(
                str(gguf.parent),
                gguf_file=gguf.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
            )
        except (ValueError, KeyError, IndexError, TypeError, RuntimeError, ImportError, OSError) as error:
            raise ModelError(
                f"{name}: cannot be converted ({error_line(error)}); give a safetensors folder"
            ) from error
        _correct_tokenizer(tokenizer, metadata, name)
        # The weights are dense now, but the model still calls itself quantised and would refuse to be saved.
        model.hf_quantizer = None
        model.is_quantized = False
        model.quantization_method = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        try:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        except SafetensorError as error:
            raise OSError(error_line(error)) from error
    return folder


def _metadata(gguf: Path, name: str) -> dict[str, object]:
    """The GGUF's tokenizer entries that determine how text is split."""
    from gguf import GGUFReader

    try:
        fields = GGUFReader(gguf).fields
        keys = ("tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.add_bos_token")
        return {key: fields[key].contents() for key in keys if key in fields}
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error) as error:
        raise ModelError(f"{name}: not a readable GGUF file ({error_line(error)}); get it again") from error


def _correct_tokenizer(tokenizer: PreTrainedTokenizerBase, metadata: dict[str, object], name: str) -> None:
    """Add what the GGUF specifies and transformers ignores: digit splitting and the BOS token.

    Without the first, SmolLM2 reads "\\n\\n1" as other tokens than in training; without the second, Gemma
    misses the BOS token that began every text in training.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    backend = tokenizer.backend_tokenizer
    splitter = metadata.get("tokenizer.ggml.pre", "none")
    if metadata.get("tokenizer.ggml.model") == "gpt2" and isinstance(backend.pre_tokenizer, ByteLevel):
        if splitter in _DIGIT_SPLITS:
            digits = Digits(individual_digits=True)
            backend.pre_tokenizer = Sequence([digits, ByteLevel(add_prefix_space=False, use_regex=True)])
        elif splitter not in _GPT2_SPLITS:
            raise ModelError(
                f"{name}: how its tokenizer splits text ({error_line(str(splitter))}) is not known, so "
                "scores would be of wrong tokens; give a safetensors folder of the model"
            )
    if metadata.get("tokenizer.ggml.add_bos_token"):
        tokenizer.add_bos_token = True
        if tokenizer("a").input_ids[0] != tokenizer.bos_token_id:
            raise ModelError(f"{name}: its tokenizer cannot add the BOS token; give a safetensors folder")
