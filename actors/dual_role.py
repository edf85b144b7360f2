"""The actor in both roles: one model that scores and rewrites.

Invariants: those of the scorer actor and the rewriter actor; the model is in memory once.
"""

from __future__ import annotations

from pmpo_ray.actors.process import ending_with_engine, where
from pmpo_ray.config.engines import RewriterConfig, ScorerConfig
from pmpo_ray.engines.factory import open_both
from pmpo_ray.engines.lengths import prompt_lengths
from pmpo_ray.engines.placement import Placement
from pmpo_ray.protocols import AsyncGenerator, AsyncScorer
from pmpo_ray.types import (
    EngineInfo,
    Example,
    GenerateRequest,
    GenerateResult,
    PromptLength,
    ScoreRequest,
    ScoreResult,
)


class BothActor:
    """One replica that scores and rewrites. It holds the scorer's model; of `rewriter` only `batch`
    matters."""

    def __init__(
        self, scorer: ScorerConfig, rewriter: RewriterConfig, model: str, placement: Placement | None = None
    ) -> None:
        self._scorer = scorer
        self._rewriter = rewriter
        self._model = model
        self._placement = placement
        self._engines: tuple[AsyncScorer, AsyncGenerator] | None = None

    async def start(self) -> EngineInfo:
        """Create the engine, which loads the model. Raises the engine's PmpoError."""
        self._engines = await open_both(self._scorer, self._rewriter, self._model, self._placement)
        return self._engines[0].info()

    async def score(
        self,
        instruction: str,
        examples: tuple[Example, ...],
        start: int,
        stop: int,
        shots: tuple[Example, ...],
    ) -> ScoreResult:
        """As `ScorerActor.score`."""
        scorer, _ = self._started()
        with ending_with_engine(scorer):
            return await scorer.score(ScoreRequest(instruction, examples[start:stop], shots))

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """As `RewriterActor.generate`."""
        _, generator = self._started()
        with ending_with_engine(generator):
            return await generator.generate(request)

    async def lengths(
        self, instruction: str, examples: tuple[Example, ...], shots: tuple[Example, ...]
    ) -> tuple[PromptLength, ...] | None:
        """As `ScorerActor.lengths`."""
        return await prompt_lengths(self._started()[0], ScoreRequest(instruction, examples, shots))

    async def ping(self) -> str:
        """The address of this replica, as "host:pid"."""
        return where()

    def _started(self) -> tuple[AsyncScorer, AsyncGenerator]:
        if self._engines is None:
            raise RuntimeError("the replica was called before start")
        return self._engines
