"""The pools of an evaluation: the evaluated model, and the models that judge its replies.

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
    """The clients of an evaluated model, as far as they were requested: `scorer` for likelihood, `generator`
    for generation."""

    info: EngineInfo
    scorer: ScorerPool | None
    generator: RewriterPool | None


@asynccontextmanager
async def model_pools(
    model: str,
    scorer: ScorerConfig | None,
    rewriter: RewriterConfig | None,
    plans: Mapping[str, ReplicaPlan],
    settings: RayConfig,
) -> AsyncIterator[EvaluatedModel]:
    """Start pools of `model` by `plans` (keys: scorer, rewriter), and end them with the block. The first
    replica of each is ready; with `scorer.role` both the scorer's replicas also write. Errors as in
    `Pool.start`."""
    async with AsyncExitStack() as stack:
        scoring: ScorerPool | None = None
        writing: RewriterPool | None = None
        if scorer is not None and scorer.role == "both":
            scoring, writing = await start_shared_pool(
                scorer, rewriter or RewriterConfig(), model, plans["scorer"], settings
            )
            stack.push_async_callback(scoring.close)
        else:
            if scorer is not None:
                scoring = await start_scorer_pool(scorer, model, plans["scorer"], settings)
                stack.push_async_callback(scoring.close)
            if rewriter is not None:
                writing = await start_rewriter_pool(rewriter, model, plans["rewriter"], settings)
                stack.push_async_callback(writing.close)
        first = scoring or writing
        if first is None:
            raise ValueError("a model is evaluated by likelihood, by generation, or both")
        yield EvaluatedModel(first.info, scoring, writing)


class RewardPool:
    """A client of process-reward replicas."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def rate(self, problem: str, solution: str) -> StepScores:
        """The scores of the solution's steps. Errors as in `ProcessRewardModel.score` and `Pool.submit`."""
        weight = (len(problem) + len(solution)) / CHARACTERS_PER_TOKEN
        scores = await self._pool.submit(RewardActor.rate, problem, solution, weight=weight)
        self._pool.count_tokens(scores.tokens)
        return scores


@asynccontextmanager
async def evaluator_pool(
    config: RewriterConfig, model: str, plan: ReplicaPlan, settings: RayConfig
) -> AsyncIterator[RewriterPool]:
    """Replicas of the model that compares replies with targets, ended with the block."""
    pool = await start_rewriter_pool(config, model, plan, settings)
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def reward_pool(
    config: ProcessRewardConfig, plan: ReplicaPlan, settings: RayConfig
) -> AsyncIterator[RewardPool]:
    """Replicas of the process-reward model, ended with the block."""
    launcher = RayLauncher(RewardActor, (config, plan.device), plan)
    pool, _ = await started(pool_spec("process_reward", launcher, plan, settings, slots=1))
    try:
        yield RewardPool(pool)
    finally:
        await pool.close()
