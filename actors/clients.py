"""What a search awaits when its work runs on pools of replicas.

Invariants: a set of examples is put into the object store once, however often it is scored, as long as it is
in use; when one chunk fails, the chunks beside it that were not sent yet never are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AsyncExitStack

import ray

from pmpo_ray.actors.autoscaling import Bounds
from pmpo_ray.actors.dual_role import BothActor
from pmpo_ray.actors.launcher import RayLauncher
from pmpo_ray.actors.pool import Pool
from pmpo_ray.actors.pool_spec import PoolSpec
from pmpo_ray.actors.resources import ReplicaPlan
from pmpo_ray.actors.rewriter import RewriterActor
from pmpo_ray.actors.scorer import ScorerActor
from pmpo_ray.actors.stats import PoolStats
from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.engines import RewriterConfig, ScorerConfig
from pmpo_ray.config.import_paths import script_object
from pmpo_ray.config.run import RayConfig
from pmpo_ray.types import (
    EngineInfo,
    Example,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    ScoreRequest,
    ScoreResult,
)

Examples = tuple[Example, ...]

SETS_KEPT = 4096
"""Sets of examples that stay in the object store; a task has two or three."""
CHARACTERS_PER_TOKEN = 4
WRITTEN_TOKEN = 10.0
"""What writing a token costs in tokens read, roughly: of a prompt many are read in one pass, and an
instruction's only once."""


class ScorerPool:
    """A ScoreClient over scorer replicas. `slots` is how much of a replica a chunk takes; `share` makes what
    is passed in place of a set of examples, so that it is sent to a node once: it is put into Ray's object
    store if nothing else is said."""

    def __init__(
        self,
        pool: Pool,
        info: EngineInfo,
        chunk_examples: int,
        *,
        slots: int = 1,
        share: Callable[[Examples], object] = ray.put,
    ) -> None:
        self.info = info
        self._pool = pool
        self._chunk_examples = chunk_examples
        self._slots = slots
        self._share = share
        self._shared: OrderedDict[Examples, object] = OrderedDict()

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        """As in `ScoreClient.score`, computed in chunks of `scorer.chunk_examples`; the chunk with the
        most rounds left goes first. Errors as in `Pool.submit`."""
        starts = range(0, len(request.examples), self._chunk_examples)
        results = await gather_or_cancel(self._chunk(request, start, rounds_left) for start in starts)
        return tuple(score for result in results for score in result.scores)

    def stats(self) -> PoolStats:
        """What the pool is doing now."""
        return self._pool.stats()

    async def close(self) -> None:
        """End all replicas; whoever still waits gets a ResourceError."""
        await self._pool.close()
        self._shared.clear()

    async def _chunk(self, request: ScoreRequest, start: int, rounds_left: int) -> ScoreResult:
        stop = min(start + self._chunk_examples, len(request.examples))
        # Instruction and shots are shared by the chunk: an engine computes them once.
        characters = (
            len(request.instruction) + _characters(request.shots) + _characters(request.examples[start:stop])
        )
        # Ray resolves references that are arguments themselves and none inside of a value, so the parts of
        # the request travel one by one.
        result = await self._pool.submit(
            ScorerActor.score,
            request.instruction,
            self._sharing(request.examples),
            start,
            stop,
            self._sharing(request.shots),
            weight=characters / CHARACTERS_PER_TOKEN,
            slots=self._slots,
            group=request.instruction,
            urgency=rounds_left,
        )
        self._pool.count_tokens(result.tokens_computed)
        return result

    def _sharing(self, examples: Examples) -> object:
        if examples in self._shared:
            self._shared.move_to_end(examples)
        else:
            self._shared[examples] = self._share(examples)
            if len(self._shared) > SETS_KEPT:
                self._shared.popitem(last=False)
        return self._shared[examples]


class RewriterPool:
    """A GenerateClient over rewriter replicas. `token_weight` is the work of a written token in that of a
    read one, where replicas do both."""

    def __init__(self, pool: Pool, info: EngineInfo, token_weight: float = 1.0) -> None:
        self.info = info
        self._pool = pool
        self._token_weight = token_weight

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        """The samples of `request`; of what waits, that with the most rounds left goes first. Errors as in
        `Pool.submit`."""
        result = await self._pool.submit(
            RewriterActor.generate,
            request,
            weight=self._token_weight * request.n * request.max_tokens,
            slots=request.n,
            urgency=rounds_left,
        )
        self._pool.count_tokens(result.tokens)
        return result

    def stats(self) -> PoolStats:
        """What the pool is doing now."""
        return self._pool.stats()

    async def close(self) -> None:
        """End all replicas; whoever still waits gets a ResourceError."""
        await self._pool.close()


async def start_scorer_pool(
    config: ScorerConfig, model: str, plan: ReplicaPlan, settings: RayConfig
) -> ScorerPool:
    """Scorer replicas of `model` on the connected cluster, the first one ready. Errors as in `Pool.start`."""
    factory = script_object(config.engine, "scorer.engine")
    launcher = RayLauncher(ScorerActor, (config, model, plan.placement, factory), plan)
    pool, info = await started(pool_spec("scorer", launcher, plan, settings, slots=1))
    return ScorerPool(pool, info, config.chunk_examples)


async def start_rewriter_pool(
    config: RewriterConfig, model: str, plan: ReplicaPlan, settings: RayConfig
) -> RewriterPool:
    """Rewriter replicas of `model` on the connected cluster, the first one ready. Errors as in
    `Pool.start`."""
    factory = script_object(config.engine, "rewriter.engine")
    launcher = RayLauncher(RewriterActor, (config, model, plan.placement, factory), plan)
    pool, info = await started(pool_spec("rewriter", launcher, plan, settings, slots=config.batch))
    return RewriterPool(pool, info)


async def start_shared_pool(
    scorer: ScorerConfig, rewriter: RewriterConfig, model: str, plan: ReplicaPlan, settings: RayConfig
) -> tuple[ScorerPool, RewriterPool]:
    """Replicas of `model` that score and rewrite, the first one ready. Errors as in `Pool.start`.

    A chunk to score takes a replica's places for half of its samples: an engine that joins requests writes on
    beside it, and one that takes turns has little waiting.
    """
    launcher = RayLauncher(BothActor, (scorer, rewriter, model, plan.placement), plan)
    pool, info = await started(pool_spec("scorer", launcher, plan, settings, slots=rewriter.batch))
    half = max(1, rewriter.batch // 2)
    return (
        ScorerPool(pool, info, scorer.chunk_examples, slots=half),
        RewriterPool(pool, info, WRITTEN_TOKEN),
    )


def pool_spec(
    role: str, launcher: RayLauncher, plan: ReplicaPlan, settings: RayConfig, *, slots: int
) -> PoolSpec:
    return PoolSpec(
        role=role,
        launcher=launcher,
        bounds=Bounds(plan.min_replicas, plan.replicas, settings.idle_timeout),
        slots=slots,
        start_timeout=settings.start_timeout,
        outage_timeout=settings.outage_timeout,
    )


async def started(spec: PoolSpec) -> tuple[Pool, EngineInfo]:
    async with AsyncExitStack() as undo:
        pool = Pool(spec)
        undo.push_async_callback(pool.close)
        info = await pool.start()
        undo.pop_all()
    return pool, info


def _characters(examples: Examples) -> int:
    return sum(
        len(example.input) + len(example.target) + sum(map(len, example.negatives)) for example in examples
    )
