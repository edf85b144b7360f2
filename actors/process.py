"""The process of a replica: where it is, and when it ends by itself.

Invariant: no process goes on answering calls for an engine that has died.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

from pmpo_ray.errors import EngineLostError
from pmpo_ray.protocols import AsyncGenerator, AsyncScorer

_log = logging.getLogger(__name__)


def where() -> str:
    """Where this process lives, as "host:pid"."""
    return f"{platform.node()}:{os.getpid()}"


@contextmanager
def ending_with_engine(engine: AsyncScorer | AsyncGenerator) -> Iterator[None]:
    """End the process where the engine turns out to be dead: its pool sees a lost replica at once, and what
    the engine held, a GPU's memory above all, is free for the next one."""
    try:
        yield
    except EngineLostError as error:
        _log.error("the engine died, the replica ends: %s", error)
        engine.close()
        os._exit(1)
