"""The cache of converted models, and the progress bar shown while a model is added to it.

Invariants: a folder appears in the cache whole or not at all, and is named after the checksum of its GGUF;
processes that need the same model convert it once.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pmpo_ray.errors import ModelError
from pmpo_ray.text import error_line

_LOCK_SECONDS = 3600


def cache_root() -> Path:
    """The folder of converted models: `$PMPO_CACHE_DIR/models`, or in the user's cache folder."""
    return Path(os.environ.get("PMPO_CACHE_DIR") or platformdirs.user_cache_dir("pmpo_ray")) / "models"


def cache_folder(name: str, sha256: str) -> Path:
    """The cache folder of a model, there or not, by its name and the checksum of its GGUF."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "--", name).strip(".-")[:80] or "model"
    return cache_root() / f"{safe}-{sha256[:16]}"


def cached_model(name: str, sha256: str, build: Callable[[Path], Path]) -> Path:
    """The cache folder of `name` with this checksum; if absent, `build` makes it in a working
    folder, its argument, and returns it.

    Raises ModelError if the cache can't be written, or if another process holds it for an hour.
    """
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
def loading_bar(subject: str, *, shown: bool) -> Iterator[Progress]:
    """A progress bar on stderr if that is a terminal, else a line at the start and one at the end."""
    # Bound to the current stderr: conversion redirects sys.stderr for a while.
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal))
    plain = shown and not console.is_terminal
    started = time.monotonic()
    if plain:
        print(f"model: preparing {subject}", file=console.file, flush=True)
    with bar:
        yield bar
    if plain:
        print(
            f"model: {subject} ready after {time.monotonic() - started:.0f} s", file=console.file, flush=True
        )
