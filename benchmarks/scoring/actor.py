"""The cost of Ray: the same requests to an engine alone and to a scorer pool of one actor.

Invariant: both get the same texts in the same repetition, and no text twice, so that neither finds its
instruction in a cache.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Literal

from benchmarks.scoring.children import ANSWER_SECONDS, ContestantLostError
from benchmarks.scoring.measuring import REPETITIONS, largest_difference
from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.engines import ScorerConfig
from pmpo_ray.config.run import RayConfig
from pmpo_ray.types import ExampleScore, ScoreRequest

Scores = list[tuple[ExampleScore, ...]]


@dataclass(frozen=True, slots=True)
class ActorTimes:
    """Seconds of every repetition, and the largest difference between their scores in nats."""

    bare: tuple[float, ...]
    actor: tuple[float, ...]
    difference: float


def time_actor(
    requests: Sequence[ScoreRequest], model: str, device: Literal["cpu", "cuda"], threads: int
) -> ActorTimes:
    """Score the requests in turns by an engine alone and by an actor, each in a separate process."""
    config = ScorerConfig(device=device, threads=threads)
    context = multiprocessing.get_context("spawn")
    pipe, far = context.Pipe()
    process = context.Process(target=_serve_bare, args=(config, model, far))
    process.start()
    far.close()

    def bare(batch: Sequence[ScoreRequest]) -> Scores:
        try:
            pipe.send(tuple(batch))
            if not pipe.poll(ANSWER_SECONDS):
                raise ContestantLostError(f"pmpo_engine: no answer within {ANSWER_SECONDS:.0f} seconds")
            scores: Scores = pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise ContestantLostError(
                "pmpo_engine: its process has ended; what it printed says why"
            ) from error
        return scores

    try:
        return asyncio.run(_take_turns(bare, requests, config, model))
    finally:
        pipe.close()
        process.join()


async def _take_turns(
    bare: Callable[[Sequence[ScoreRequest]], Scores],
    requests: Sequence[ScoreRequest],
    config: ScorerConfig,
    model: str,
) -> ActorTimes:
    import ray

    from pmpo_ray.actors.clients import start_scorer_pool
    from pmpo_ray.actors.resources import ReplicaPlan

    assert config.threads is not None
    assert config.device != "auto"
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    pool = await start_scorer_pool(
        config,
        model,
        ReplicaPlan(
            replicas=1,
            num_cpus=1,
            num_gpus=1 if config.device == "cuda" else 0,
            memory_bytes=None,
            threads=config.threads,
            device=config.device,
        ),
        RayConfig(),
    )

    times: tuple[list[float], list[float]] = ([], [])
    difference = 0.0
    try:
        for repetition in range(REPETITIONS + 1):
            batch = [replace(one, instruction=f"{repetition}. {one.instruction}") for one in requests]
            began = time.perf_counter()
            expected = await asyncio.to_thread(bare, batch)
            between = time.perf_counter()
            scores = await gather_or_cancel(map(pool.score, batch))
            ended = time.perf_counter()
            difference = max(difference, largest_difference(_sums(expected), _sums(scores)))
            if repetition > 0:  # the first one warms both up
                times[0].append(between - began)
                times[1].append(ended - between)
    finally:
        await pool.close()
        ray.shutdown()
    return ActorTimes(tuple(times[0]), tuple(times[1]), difference)


def _serve_bare(config: ScorerConfig, model: str, pipe: Connection) -> None:
    from pmpo_ray.engines.factory import create_scorer

    scorer = create_scorer(config, model)
    while True:
        try:
            requests = pipe.recv()
        except EOFError:
            return
        pipe.send([scorer.score(request).scores for request in requests])


def _sums(results: Scores) -> list[float]:
    return [
        answer.logprob
        for scores in results
        for score in scores
        for answer in (score.target, *score.negatives)
    ]
