"""The process of a replica: its address, and its end when the engine dies.

Invariant: no process goes on answering calls for an engine that has died.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pmpo_ray.errors import EngineLostError
from pmpo_ray.protocols import AsyncGenerator, AsyncScorer

_log = logging.getLogger(__name__)


def where() -> str:
    """The address of this process, as "host:pid"."""
    return f"{platform.node()}:{os.getpid()}"


def kill_here(address: str) -> None:
    """End the process of a replica at the address that `where` gave, if it is on this machine."""
    host, _, process = address.rpartition(":")
    if host == platform.node() and process.isdecimal():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)


def descendants(process: int) -> list[int]:
    """The live processes below a process of this machine; none where the system has no /proc."""
    below: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
            below.setdefault(int(parent), []).append(int(file.parent.name))
    found: list[int] = []
    left = [process]
    while left:
        children = below.get(left.pop(), [])
        found += children
        left += children
    return found


@contextmanager
def ending_with_engine(engine: AsyncScorer | AsyncGenerator) -> Iterator[None]:
    """End the process if the engine is found dead: the pool sees a lost replica at once, and the engine's
    resources, above all a GPU's memory, are free for the next replica."""
    try:
        yield
    except EngineLostError as error:
        _log.error("the engine died, the replica ends: %s", error)
        engine.close()
        os._exit(1)
