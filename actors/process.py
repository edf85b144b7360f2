"""The process of a replica: its address, and its end when the engine dies.

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
    """The address of this process, as "host:pid"."""
    return f"{platform.node()}:{os.getpid()}"


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
