"""The clients of pools of replicas.

Invariants: a set of examples is put into the object store at most once, however often it is scored, as long
as it is in use; when one chunk of a request fails, its waiting chunks are never sent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AsyncExitStack

from pmpo_ray.actors.autoscaling import Bounds
from pmpo_ray.actors.cluster import put
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
from pmpo_ray.counting import counted
from pmpo_ray.types import (
    EngineInfo,
    Example,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    PromptLength,
    ScoreRequest,
    ScoreResult,
)

Examples = tuple[Example, ...]

SETS_KEPT = 4096
"""The number of sets of examples that are known at a time."""
_RARE = 16
"""A small set of examples travels by value so many times; most demonstrations are used by one candidate."""
_SMALL = 20_000
"""The maximum number of characters of a small set. Ray itself stores larger arguments anew for every call."""
CHARACTERS_PER_TOKEN = 4
"""A rough estimate, for the weights of units."""
WRITTEN_TOKEN_WEIGHT = 10.0
"""The work of writing a token, in read tokens, roughly: one pass reads many tokens, and an instruction is
read only once."""


class ScorerPool:
    """A ScoreClient over scorer replicas.

    `slots` is the number of a replica's slots that a chunk takes. `share` makes the reference that is passed
    in place of a large or often used set of examples, so that the set is sent to a node once: by default it
    is put into Ray's object store.
    """

    def __init__(
        self,
        pool: Pool,
        info: EngineInfo,
        chunk_examples: int,
        *,
        slots: int = 1,
        share: Callable[[Examples], object] = put,
    ) -> None:
        self.info = info
        self._pool = pool
        self._chunk_examples = chunk_examples
        self._slots = slots
        self._share = share
        # The uses of each set, and its reference, the most recent last.
        self._sets: OrderedDict[Examples, tuple[int, object | None]] = OrderedDict()

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        """As in `ScoreClient.score`, computed in chunks of `scorer.chunk_examples`; the chunk with the
        most rounds left goes first. Errors as in `Pool.submit`."""
        starts = range(0, len(request.examples), self._chunk_examples)
        with counted(len(request.examples)) as done:
            results = await gather_or_cancel(
                self._chunk(request, start, rounds_left, done) for start in starts
            )
        return tuple(score for result in results for score in result.scores)

    async def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...] | None:
        """The lengths of the prompts of `request`; None if the engine does not tell them. Errors as in
        `Pool.submit`."""
        return await self._pool.submit(
            ScorerActor.lengths,
            request.instruction,
            self._argument(request.examples),
            self._argument(request.shots),
            weight=0.0,
            slots=self._slots,
        )

    def stats(self) -> PoolStats:
        """Statistics of the pool at this moment."""
        return self._pool.stats()

    async def close(self) -> None:
        """End all replicas; every waiting caller gets a ResourceError."""
        await self._pool.close()
        self._sets.clear()

    async def _chunk(
        self, request: ScoreRequest, start: int, rounds_left: int, done: Callable[[int], None]
    ) -> ScoreResult:
        stop = min(start + self._chunk_examples, len(request.examples))
        # The instruction and the shots are the chunk's common prefix: an engine computes them once.
        characters = (
            len(request.instruction) + _characters(request.shots) + _characters(request.examples[start:stop])
        )
        # Ray resolves references that are arguments, but none inside an argument, so the parts of the
        # request travel one by one.
        result = await self._pool.submit(
            ScorerActor.score,
            request.instruction,
            self._argument(request.examples),
            start,
            stop,
            self._argument(request.shots),
            weight=characters / CHARACTERS_PER_TOKEN,
            slots=self._slots,
            group=request.instruction,
            urgency=rounds_left,
        )
        self._pool.count_tokens(result.tokens_computed)
        done(stop - start)
        return result

    def _argument(self, examples: Examples) -> object:
        """The set, or the reference that stands for it."""
        uses, reference = self._sets.pop(examples, (0, None))
        if reference is None and (uses == _RARE or _characters(examples) > _SMALL):
            reference = self._share(examples)
        self._sets[examples] = uses + 1, reference
        if len(self._sets) > SETS_KEPT:
            self._sets.popitem(last=False)
        return examples if reference is None else reference


class RewriterPool:
    """A GenerateClient over rewriter replicas. `token_weight` is the work of a written token in read tokens,
    if the replicas do both."""

    def __init__(self, pool: Pool, info: EngineInfo, token_weight: float = 1.0) -> None:
        self.info = info
        self._pool = pool
        self._token_weight = token_weight

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        """The samples of `request`; the waiting request with the most rounds left goes first. Errors as in
        `Pool.submit`."""
        with counted(1) as done:
            result = await self._pool.submit(
                RewriterActor.generate,
                request,
                weight=self._token_weight * request.n * request.max_tokens,
                slots=request.n,
                urgency=rounds_left,
            )
            done(1)
        self._pool.count_tokens(result.tokens)
        return result

    async def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...] | None:
        """As `ScorerPool.lengths`."""
        return await self._pool.submit(
            RewriterActor.lengths, request.instruction, request.examples, request.shots, weight=0.0
        )

    def stats(self) -> PoolStats:
        """Statistics of the pool at this moment."""
        return self._pool.stats()

    async def close(self) -> None:
        """End all replicas; every waiting caller gets a ResourceError."""
        await self._pool.close()


async def start_scorer_pool(
    config: ScorerConfig, model: str, plan: ReplicaPlan, settings: RayConfig
) -> ScorerPool:
    """Start scorer replicas of `model` on the connected cluster and return when the first is ready. Errors as
    in `Pool.start`."""
    factory = script_object(config.engine, "scorer.engine")
    launcher = RayLauncher(ScorerActor, (config, model, plan.placement, factory), plan)
    pool, info = await started(pool_spec("scorer", launcher, plan, settings, slots=1))
    return ScorerPool(pool, info, config.chunk_examples)


async def start_rewriter_pool(
    config: RewriterConfig, model: str, plan: ReplicaPlan, settings: RayConfig
) -> RewriterPool:
    """Start rewriter replicas of `model` on the connected cluster and return when the first is ready. Errors
    as in `Pool.start`."""
    factory = script_object(config.engine, "rewriter.engine")
    launcher = RayLauncher(RewriterActor, (config, model, plan.placement, factory), plan)
    pool, info = await started(pool_spec("rewriter", launcher, plan, settings, slots=config.batch))
    return RewriterPool(pool, info)


async def start_shared_pool(
    scorer: ScorerConfig, rewriter: RewriterConfig, model: str, plan: ReplicaPlan, settings: RayConfig
) -> tuple[ScorerPool, RewriterPool]:
    """Start replicas of `model` that score and rewrite and return when the first is ready. Errors as in
    `Pool.start`.

    A chunk to score takes half of a replica's slots: an engine that batches requests goes on writing at the
    same time, and an engine that takes turns has little work waiting.
    """
    launcher = RayLauncher(BothActor, (scorer, rewriter, model, plan.placement), plan)
    pool, info = await started(pool_spec("scorer", launcher, plan, settings, slots=rewriter.batch))
    half = max(1, rewriter.batch // 2)
    return (
        ScorerPool(pool, info, scorer.chunk_examples, slots=half),
        RewriterPool(pool, info, WRITTEN_TOKEN_WEIGHT),
    )


def pool_spec(
    role: str, launcher: RayLauncher, plan: ReplicaPlan, settings: RayConfig, *, slots: int
) -> PoolSpec:
    """The settings of a role's pool."""
    return PoolSpec(
        role=role,
        launcher=launcher,
        bounds=Bounds(plan.min_replicas, plan.replicas, settings.idle_timeout),
        slots=slots,
        start_timeout=settings.start_timeout,
        outage_timeout=settings.outage_timeout,
    )


async def started(spec: PoolSpec) -> tuple[Pool, EngineInfo]:
    """A pool whose first replica is ready. A pool that cannot be started is closed."""
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
