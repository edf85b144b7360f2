"""The pools of one run.

Invariant: whatever ends the block, every replica that was started in it is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pmpo_ray.actors.clients import (
    RewriterPool,
    ScorerPool,
    start_rewriter_pool,
    start_scorer_pool,
    start_shared_pool,
)
from pmpo_ray.actors.resources import Plan
from pmpo_ray.actors.stats import PoolStats
from pmpo_ray.config.run import RunConfig


@dataclass(frozen=True, slots=True)
class Pools:
    """The started clients of a run, and the statistics of each pool by its name: scorer and rewriter, or both
    for one pool in both roles."""

    scorer: ScorerPool
    rewriter: RewriterPool
    stats: Mapping[str, Callable[[], PoolStats]]


@asynccontextmanager
async def running_pools(config: RunConfig, plan: Plan) -> AsyncIterator[Pools]:
    """Start the pools of a run, and end them with the block. One replica of each is ready. Errors as in
    `Pool.start`."""
    if plan.rewriter is None:
        model = config.scorer_model
        scorer, rewriter = await start_shared_pool(
            config.scorer, config.rewriter, model, plan.scorer, config.ray
        )
        try:
            yield Pools(scorer, rewriter, {"both": scorer.stats})
        finally:
            await scorer.close()
        return
    scoring = asyncio.create_task(
        start_scorer_pool(config.scorer, config.scorer_model, plan.scorer, config.ray)
    )
    rewriting = asyncio.create_task(
        start_rewriter_pool(config.rewriter, config.rewriter_model, plan.rewriter, config.ray)
    )
    try:
        scorer, rewriter = await asyncio.gather(scoring, rewriting)
        yield Pools(scorer, rewriter, {"scorer": scorer.stats, "rewriter": rewriter.stats})
    finally:
        for task in (scoring, rewriting):
            task.cancel()
        for pool in await asyncio.gather(scoring, rewriting, return_exceptions=True):
            if not isinstance(pool, BaseException):
                await pool.close()
