"""What the parts of the optimiser promise each other.

Engines hold one model replica and know nothing of Ray. `Scorer` and `Generator` are synchronous, for one
thread; `AsyncScorer` and `AsyncGenerator` belong to the event loop they were opened on and take many requests
at once. Clients (`ScoreClient`, `GenerateClient`) are what a search awaits: an engine called in a thread, or
a pool of replicas on a cluster.

Error semantics, the same everywhere:
- `EngineError` and `DataError`: the request itself is at fault; another replica would fail alike, so
  nobody retries it. The candidate it belongs to fails with that reason, the run goes on.
- `EndpointError`: the server behind the engine is at fault, no request; the unit is given to another replica.
- `EngineLostError`: the engine is dead; its process ends, and the unit is given to another replica.
- any other exception: the replica is at fault; a pool marks it down and gives the unit to another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from pmpo_ray.types import (
    EngineInfo,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    Progress,
    ScoreRequest,
    ScoreResult,
)


@runtime_checkable
class Scorer(Protocol):
    """Computes log p(answer | instruction, input) in forward passes, without decoding."""

    def info(self) -> EngineInfo: ...

    def score(self, request: ScoreRequest) -> ScoreResult:
        """Score every example's target and negatives. The scores depend on the instruction, the shots and
        the example alone, not on the other examples of the request.

        Raises EngineError if an example is longer than the context.
        """
        ...


@runtime_checkable
class Generator(Protocol):
    """Answers prompts by sampling."""

    def info(self) -> EngineInfo: ...

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """Answer all requests together, results in their order.

        Raises EngineError if a prompt leaves no room for an answer in the context.
        """
        ...


@runtime_checkable
class AsyncScorer(Protocol):
    """A `Scorer` on an event loop."""

    def info(self) -> EngineInfo: ...

    async def score(self, request: ScoreRequest) -> ScoreResult:
        """As `Scorer.score`."""
        ...

    def close(self) -> None:
        """End what was started for it; nothing may be asked of it afterwards."""
        ...


@runtime_checkable
class AsyncGenerator(Protocol):
    """A `Generator` on an event loop."""

    def info(self) -> EngineInfo: ...

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """The samples of one request; errors as in `Generator.generate`."""
        ...

    def close(self) -> None:
        """End what was started for it; nothing may be asked of it afterwards."""
        ...


class ScoreClient(Protocol):
    """Scores from anywhere: what a search awaits."""

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        """Return one score per example, in the order of `request.examples`, under the error semantics above.

        `rounds_left` is the number of rounds that wait for these scores one after another. It is a hint for
        the order of service and does not change the scores.
        """
        ...


class GenerateClient(Protocol):
    """Samples from anywhere: what a search awaits."""

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        """The samples of `request`; `rounds_left` as in `ScoreClient.score`."""
        ...


class Observer(Protocol):
    """Told of every change of every task, on the driver's event loop; must return quickly."""

    def __call__(self, progress: Progress) -> None: ...
