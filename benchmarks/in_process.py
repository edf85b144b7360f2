"""Clients of the simulated engine in this process: for run folders that need no Ray."""

from __future__ import annotations

from pmpo_ray.engines.simulated.engine import SimulatedGenerator, SimulatedScorer
from pmpo_ray.types import ExampleScore, GenerateRequest, GenerateResult, ScoreRequest


class InProcessScorer:
    """A ScoreClient around a simulated scorer."""

    def __init__(self) -> None:
        self._engine = SimulatedScorer("simulated")

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        return self._engine.score(request).scores


class InProcessGenerator:
    """A GenerateClient around a simulated generator."""

    def __init__(self) -> None:
        self._engine = SimulatedGenerator("simulated")

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        return self._engine.generate([request])[0]
