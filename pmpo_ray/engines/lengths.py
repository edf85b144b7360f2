"""The lengths of prompts, asked of any engine.

Invariant: nothing is computed by a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor

from pmpo_ray.protocols import Measurer
from pmpo_ray.types import PromptLength, ScoreRequest


async def prompt_lengths(
    engine: object, request: ScoreRequest, thread: ThreadPoolExecutor | None = None
) -> tuple[PromptLength, ...] | None:
    """The lengths of the prompts of a request; None if the engine does not tell them. A synchronous engine is
    called in its `thread`."""
    if not isinstance(engine, Measurer):
        return None
    if thread is None:
        lengths = engine.lengths(request)
    else:
        lengths = await asyncio.get_running_loop().run_in_executor(thread, engine.lengths, request)
    return await lengths if isinstance(lengths, Awaitable) else lengths
