"""The rewriter actor: a plain async class around one generating engine.

Invariants: the constructor cannot fail; `ping` answers while the engine works; a process whose engine has
died ends.
"""

from __future__ import annotations

from pmpo_ray.actors.process import ending_with_engine, where
from pmpo_ray.config.engines import RewriterConfig
from pmpo_ray.engines.factory import open_generator
from pmpo_ray.engines.lengths import prompt_lengths
from pmpo_ray.engines.placement import Placement
from pmpo_ray.protocols import AsyncGenerator
from pmpo_ray.types import EngineInfo, Example, GenerateRequest, GenerateResult, PromptLength, ScoreRequest


class RewriterActor:
    """One rewriter replica."""

    def __init__(
        self,
        config: RewriterConfig,
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
        self._engine: AsyncGenerator | None = None

    async def start(self) -> EngineInfo:
        """Create the engine, which loads the model. Raises the engine's PmpoError."""
        self._engine = await open_generator(self._config, self._model, self._placement, self._factory)
        return self._engine.info()

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """The samples of `request`. Calls run at the same time. Errors as in `Generator.generate`."""
        if self._engine is None:
            raise RuntimeError("generate was called before start")
        with ending_with_engine(self._engine):
            return await self._engine.generate(request)

    async def lengths(
        self, instruction: str, examples: tuple[Example, ...], shots: tuple[Example, ...]
    ) -> tuple[PromptLength, ...] | None:
        """As `ScorerActor.lengths`."""
        return await prompt_lengths(self._engine, ScoreRequest(instruction, examples, shots))

    async def ping(self) -> str:
        """The address of this replica, as "host:pid"."""
        return where()
