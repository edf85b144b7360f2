"""The pace of replicas, measured with the work that a run will give them.

Invariants: no text is scored twice, so that no cache answers; the work goes to the replicas directly, past
the memory of scores; a measurement ends with the work that is in flight when its time is over.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.protocols import GenerateClient, ScoreClient
from pmpo_ray.types import GenerateRequest, GenerateResult, ScoreRequest

MEASURED_SECONDS = 10.0
_POLL_SECONDS = 0.1
_IN_FLIGHT = 2
"""Requests for a replica at a time: one at work and one that waits."""


async def scoring_pace(
    scorer: ScoreClient,
    requests: Sequence[ScoreRequest],
    replicas: int,
    *,
    seconds: float = MEASURED_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[int, float, int]:
    """Score requests like these for about so many seconds: the tokens scored, the seconds that they took, and
    the tokens that were scored in all, before the measurement too. Errors as in the client."""
    numbers = itertools.count(1)

    async def score_one() -> int:
        number = next(numbers)
        asked = requests[number % len(requests)]
        # The number comes first: an engine that knows how a text begins would skip that part.
        text = replace(asked, instruction=f"{number}. {asked.instruction}")
        return sum(score.tokens for score in await scorer.score(text))

    # The first work of a replica takes longer: it compiles, and allocates its memory.
    before = sum(await gather_or_cancel(score_one() for _ in range(replicas)))
    began = clock()

    async def score_on() -> int:
        tokens = await score_one()
        while clock() - began < seconds:
            tokens += await score_one()
        return tokens

    tokens = sum(await gather_or_cancel(score_on() for _ in range(_IN_FLIGHT * replicas)))
    return tokens, clock() - began, before + tokens


async def writing_pace(
    rewriter: GenerateClient,
    request: GenerateRequest,
    replicas: int,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[GenerateResult], float]:
    """Send one request like this to each replica: the replies and the seconds that they took. Errors as in
    the client."""
    began = clock()
    # Every sample has another seed.
    requests = [replace(request, seed=request.seed + number * request.n) for number in range(replicas)]
    replies = await gather_or_cancel(map(rewriter.generate, requests))
    return replies, clock() - began


async def ready_replicas(count: Callable[[], int], wanted: int, seconds: float) -> int:
    """The number of ready replicas that `count` tells, once `wanted` are or after so many seconds."""
    for _ in range(int(seconds / _POLL_SECONDS)):
        if count() >= wanted:
            break
        await asyncio.sleep(_POLL_SECONDS)
    return max(1, count())
