"""What the parts of the optimiser promise each other.

Engines (`Scorer`, `Generator`) are synchronous, hold one model replica, and know nothing of Ray.
Clients (`ScoreClient`, `GenerateClient`) are what a search awaits: an engine called in a thread, or a pool
of replicas on a cluster.

Error semantics, the same everywhere:
- `EngineError` and `DataError`: the request itself is at fault; another replica would fail alike, so
  nobody retries it. The candidate it belongs to fails with that reason, the run goes on.
- any other exception: the replica is at fault; a pool marks it down and gives the unit to another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pmpo_ray.types import (
    EngineInfo,
    Example,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    Progress,
    ScoreRequest,
    ScoreResult,
)


class Scorer(Protocol):
    """Computes log p(answer | instruction, input) in forward passes, without decoding."""

    def info(self) -> EngineInfo: ...

    def score(self, request: ScoreRequest) -> ScoreResult:
        """Score every example's target and negatives. The scores depend on the instruction, the shots and
        the example alone, not on the other examples of the request.

        Raises EngineError if an example is longer than the context.
        """
        ...


class Generator(Protocol):
    """Answers prompts by sampling."""

    def info(self) -> EngineInfo: ...

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """Answer all requests together, results in their order.

        Raises EngineError if a prompt leaves no room for an answer in the context.
        """
        ...


class ScoreClient(Protocol):
    """Scores from anywhere: what a search awaits."""

    async def score(
        self,
        instruction: str,
        examples: Sequence[Example],
        shots: Sequence[Example] = (),
        *,
        rounds_left: int = 0,
    ) -> tuple[ExampleScore, ...]:
        """Scores in the order of `examples`, under the error semantics above. `rounds_left` is how many
        rounds wait for them one after another: a hint for who is served first, without influence on what
        comes out."""
        ...


class GenerateClient(Protocol):
    """Samples from anywhere: what a search awaits."""

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        """The samples of `request`; `rounds_left` as in `ScoreClient.score`."""
        ...


class Observer(Protocol):
    """Told of every change of every task, on the driver's event loop; must return quickly."""

    def __call__(self, progress: Progress) -> None: ...
