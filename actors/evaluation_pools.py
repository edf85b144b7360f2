"""The pools of an evaluation: the model that is examined, and who judges what it writes.

Invariant: whatever ends a block, every replica that was started in it is ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from pmpo_ray.actors.clients import (
    CHARACTERS_PER_TOKEN,
    RewriterPool,
    ScorerPool,
    pool_spec,
    start_rewriter_pool,
    start_scorer_pool,
    start_shared_pool,
    started,
)
from pmpo_ray.actors.launcher import RayLauncher
from pmpo_ray.actors.pool import Pool
from pmpo_ray.actors.resources import ReplicaPlan
from pmpo_ray.actors.reward import RewardActor
from pmpo_ray.config.engines import RewriterConfig, ScorerConfig
from pmpo_ray.config.evaluation import ProcessRewardConfig
from pmpo_ray.config.run import RayConfig
from pmpo_ray.engines.hf.process_reward import StepScores
from pmpo_ray.types import EngineInfo


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """The clients of a model: what chooses and what writes, as far as it was asked for."""

    info: EngineInfo
    scorer: ScorerPool | None
    generator: RewriterPool | None


@asynccontextmanager
async def model_pools(
    model: str,
    scorer: ScorerConfig | None,
    rewriter: RewriterConfig | None,
    placed: Mapping[str, ReplicaPlan],
    settings: RayConfig,
) -> AsyncIterator[EvaluatedModel]:
    """Pools of `model`, the first replica of each ready, placed as `placed` says under "scorer" and
    "rewriter"; with `scorer.role` both its replicas write, too. Errors as in `Pool.start`."""
    async with AsyncExitStack() as stack:
        choosing: ScorerPool | None = None
        writing: RewriterPool | None = None
        if scorer is not None and scorer.role == "both":
            choosing, writing = await start_shared_pool(
                scorer, rewriter or RewriterConfig(), model, placed["scorer"], settings
            )
            stack.push_async_callback(choosing.close)
        else:
            if scorer is not None:
                choosing = await start_scorer_pool(scorer, model, placed["scorer"], settings)
                stack.push_async_callback(choosing.close)
            if rewriter is not None:
                writing = await start_rewriter_pool(rewriter, model, placed["rewriter"], settings)
                stack.push_async_callback(writing.close)
        first = choosing or writing
        if first is None:
            raise ValueError("a model is examined by choosing, by writing, or both")
        yield EvaluatedModel(first.info, choosing, writing)


class RewardPool:
    """Scores of solutions' steps from process-reward replicas."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def rate(self, problem: str, solution: str) -> StepScores:
        """Errors as in `ProcessRewardModel.score` and `Pool.submit`."""
        weight = (len(problem) + len(solution)) / CHARACTERS_PER_TOKEN
        scores = await self._pool.submit(RewardActor.rate, problem, solution, weight=weight)
        self._pool.count_tokens(scores.tokens)
        return scores


@asynccontextmanager
async def evaluator_pool(
    config: RewriterConfig, model: str, plan: ReplicaPlan, settings: RayConfig
) -> AsyncIterator[RewriterPool]:
    """Replicas of the model that compares replies with targets."""
    pool = await start_rewriter_pool(config, model, plan, settings)
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def reward_pool(
    config: ProcessRewardConfig, plan: ReplicaPlan, settings: RayConfig
) -> AsyncIterator[RewardPool]:
    """Replicas of the process-reward model."""
    launcher = RayLauncher(RewardActor, (config, plan.device), plan)
    pool, _ = await started(pool_spec("process_reward", launcher, plan, settings, slots=1))
    try:
        yield RewardPool(pool)
    finally:
        await pool.close()
