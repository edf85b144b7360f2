"""Checksums of a model's files.

Invariant: a checksum stands for all bytes of a file. A file is read once in a process, and again only if its
size, its inode or the time of its last change is another. Blocks are read in threads, so that files of many
gigabytes take little longer than reading them does, which loading the model would do anyway.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

CHECKSUMS_FILE = "checksums.json"
_BLOCK = 64 << 20
_READ = 1 << 20
_THREADS = 8
_State = tuple[str, int, int, int]
"""Path, bytes, inode, and the nanosecond of the last change."""
_known: dict[tuple[_State, bool], str] = {}
"""Checksums by the states of files, of blocks (True) or of the whole."""


def checksum(file: Path) -> str:
    """The SHA-256 (hex) of the SHA-256 of each block of 64 MiB of a file, in order. Raises OSError."""
    key = _state(file), True
    if key not in _known:
        _known[key] = _read(file, key[0][1])
    return _known[key]


def plain_sha256(file: Path) -> str:
    """The SHA-256 (hex) of a file, which others publish too, but which takes one thread. Raises OSError."""
    key = _state(file), False
    if key not in _known:
        with file.open("rb") as stream:
            _known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _known[key]


def checksum_of_all(files: Iterable[Path]) -> str:
    """A checksum (hex) of the names and contents of files, in their order. Raises OSError."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{checksum(file)}\0".encode())
    return digest.hexdigest()


def write_checksums(folder: Path) -> None:
    """Write the checksums of the files in `folder` next to them. Raises OSError."""
    document = json.dumps(_checksums(folder), indent=1, sort_keys=True)
    (folder / CHECKSUMS_FILE).write_text(document, encoding="utf-8")


def damage(folder: Path) -> str:
    """The difference between the files in `folder` and their written checksums; empty if there is none."""
    try:
        written = json.loads((folder / CHECKSUMS_FILE).read_text(encoding="utf-8"))
        found = _checksums(folder)
    except (OSError, ValueError, RecursionError):
        return f"{CHECKSUMS_FILE} or another file cannot be read"
    if not isinstance(written, dict):
        return f"{CHECKSUMS_FILE} holds no checksums"
    for name in sorted(written.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in written:
            return f"{name} was added"
        if written[name] != found[name]:
            return f"{name} has changed"
    return ""


def contents(folder: Path) -> str:
    """A checksum (hex) of the written checksums of `folder`. Raises OSError."""
    return checksum(folder / CHECKSUMS_FILE)


def _checksums(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    names = {file.relative_to(folder).as_posix(): file for file in files}
    return {name: checksum(file) for name, file in names.items() if name != CHECKSUMS_FILE}


def _state(file: Path) -> _State:
    stat = file.stat()
    return str(file.resolve()), stat.st_size, stat.st_ino, stat.st_ctime_ns


def _read(file: Path, size: int) -> str:
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        blocks = threads.map(partial(_block, file), range(0, size, _BLOCK))
        return hashlib.sha256(b"".join(blocks)).hexdigest()


def _block(file: Path, start: int) -> bytes:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        stream.seek(start)
        left = _BLOCK
        while left and (part := stream.read(min(_READ, left))):
            digest.update(part)
            left -= len(part)
    return digest.digest()
