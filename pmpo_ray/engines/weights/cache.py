"""The cache of converted models, and the progress bar shown while a model is added to it.

Invariants: a folder appears in the cache whole or not at all, and is named after the checksum of its GGUF and
the version of the conversion; processes that need the same model convert it once. No folder is used unless
its files are those that the conversion wrote: a damaged one is set aside and made again.
"""

from __future__ import annotations

import contextlib
import logging
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

from pmpo_ray.engines.weights.checksums import contents, damage, write_checksums
from pmpo_ray.errors import ModelError
from pmpo_ray.text import error_line

CONVERSION = 2
"""The version of the conversion. Raise it with every change of what a conversion writes: a folder of another
version is never used."""
_LOCK_SECONDS = 3600
_log = logging.getLogger(__name__)


def cache_root() -> Path:
    """The folder of converted models: `$PMPO_CACHE_DIR/models`, or in the user's cache folder."""
    return Path(os.environ.get("PMPO_CACHE_DIR") or platformdirs.user_cache_dir("pmpo_ray")) / "models"


def cache_folder(name: str, sha256: str) -> Path:
    """The cache folder of a model, there or not, by its name and the checksum of its GGUF."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "--", name).strip(".-")[:80] or "model"
    return cache_root() / f"{safe}-{sha256[:16]}-v{CONVERSION}"


def cached_model(name: str, sha256: str, build: Callable[[Path], Path]) -> tuple[Path, str]:
    """The cache folder of `name` with this checksum, and the revision of the model in it: of its GGUF and of
    the files that the conversion wrote. If it is absent or damaged, `build` makes it in a working folder, its
    argument, and returns it.

    Raises ModelError if the cache can't be used, or if another process holds it for an hour.
    """
    root, final = cache_root(), cache_folder(name, sha256)
    try:
        if not final.is_dir() or damage(final):
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / f".{final.name}.lock", timeout=_LOCK_SECONDS):
                _make(final, build)
        return final, f"sha256:{sha256[:16]}-{contents(final)[:8]}"
    except Timeout as error:
        raise ModelError(
            f"model {name!r}: another process has been converting it for {_LOCK_SECONDS} s; "
            f"end it or remove {error.lock_file}"
        ) from error
    except OSError as error:
        raise ModelError(
            f"model {name!r}: cannot use the model cache in {root}: {error.strerror or error_line(error)}; "
            "make room there or set PMPO_CACHE_DIR to another folder"
        ) from error


def _make(final: Path, build: Callable[[Path], Path]) -> None:
    """Build the folder `final` unless another process has; the lock has to be held."""
    root = final.parent
    if final.is_dir():
        reason = damage(final)
        if not reason:
            return
        aside = root / f".{final.name}.damaged"
        shutil.rmtree(aside, ignore_errors=True)
        final.rename(aside)
        _log.warning("model cache: %s: %s; it is set aside as %s and made again", final, reason, aside.name)
    for leftover in root.glob(f".{final.name}.work-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}.work-", dir=root))
    try:
        made = build(work)
        write_checksums(made)
        made.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


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
