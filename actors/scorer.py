"""The scorer actor: a plain async class around one scoring engine.

Invariants: the constructor cannot fail; `ping` answers while the engine works; a process whose engine has
died ends.
"""

from __future__ import annotations

from pmpo_ray.actors.process import ending_with_engine, where
from pmpo_ray.config.engines import ScorerConfig
from pmpo_ray.engines.factory import open_scorer
from pmpo_ray.engines.lengths import prompt_lengths
from pmpo_ray.engines.placement import Placement
from pmpo_ray.protocols import AsyncScorer
from pmpo_ray.types import EngineInfo, Example, PromptLength, ScoreRequest, ScoreResult


class ScorerActor:
    """One scorer replica."""

    def __init__(
        self,
        config: ScorerConfig,
        model: str,
        placement: Placement | None = None,
        factory: object | None = None,
    ) -> None:
        """`placement` is the hardware of the replica (None: that of `config`); `factory` makes a user-defined
        engine that cannot be imported here."""
        self._config = config
        self._model = model
        self._placement = placement
        self._factory = factory
        self._engine: AsyncScorer | None = None

    async def start(self) -> EngineInfo:
        """Create the engine, which loads the model. Raises the engine's PmpoError."""
        self._engine = await open_scorer(self._config, self._model, self._placement, self._factory)
        return self._engine.info()

    async def score(
        self,
        instruction: str,
        examples: tuple[Example, ...],
        start: int,
        stop: int,
        shots: tuple[Example, ...],
    ) -> ScoreResult:
        """Scores of `examples[start:stop]`. The whole set may be passed as a reference that Ray resolves, so
        that it is sent to a node once and not with every chunk. Errors as in `Scorer.score`."""
        if self._engine is None:
            raise RuntimeError("score was called before start")
        with ending_with_engine(self._engine):
            return await self._engine.score(ScoreRequest(instruction, examples[start:stop], shots))

    async def lengths(
        self, instruction: str, examples: tuple[Example, ...], shots: tuple[Example, ...]
    ) -> tuple[PromptLength, ...] | None:
        """The lengths of the examples' prompts; None if the engine does not tell them."""
        return await prompt_lengths(self._engine, ScoreRequest(instruction, examples, shots))

    async def ping(self) -> str:
        """The address of this replica, as "host:pid"."""
        return where()
