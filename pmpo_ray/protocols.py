"""The interfaces of engines and clients.

Engines hold one model replica and know nothing of Ray. `Scorer` and `Generator` are synchronous, for one
thread; `AsyncScorer` and `AsyncGenerator` belong to the event loop that they were opened on and take many
requests at once. A search awaits clients (`ScoreClient`, `GenerateClient`): an engine called in a thread, or
a pool of replicas on a cluster.

Error semantics, the same everywhere:
- `EngineError` and `DataError`: the request is at fault. Another replica would fail alike, so nobody retries
  it. The candidate of the request fails with that reason, and the run goes on.
- `EndpointError`: the server behind the engine is at fault, not the request. Another replica gets the unit.
- `EngineLostError`: the engine is dead. Its process ends, and another replica gets the unit.
- any other exception: the replica is at fault. The pool suspects it, and another replica gets the unit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol, runtime_checkable

from pmpo_ray.outcomes import Progress
from pmpo_ray.types import (
    EngineInfo,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    PromptLength,
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
        """Answer all requests in one batch; the results are in the order of the requests.

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
        """End the threads and processes of the engine; no method may be called afterwards."""
        ...


@runtime_checkable
class AsyncGenerator(Protocol):
    """A `Generator` on an event loop."""

    def info(self) -> EngineInfo: ...

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """The samples of one request; errors as in `Generator.generate`."""
        ...

    def close(self) -> None:
        """As `AsyncScorer.close`."""
        ...


@runtime_checkable
class Measurer(Protocol):
    """An engine that tells the length of prompts without computing them. This is optional: whether an example
    fits into the context of any other engine shows when it is scored."""

    def lengths(
        self, request: ScoreRequest
    ) -> tuple[PromptLength, ...] | Awaitable[tuple[PromptLength, ...] | None]:
        """The lengths of every example's prompt after the shots, in the order of the examples."""
        ...


class ScoreClient(Protocol):
    """A source of scores that a search awaits."""

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        """Return one score per example, in the order of `request.examples`, under the error semantics above.

        `rounds_left` is the number of rounds that wait for these scores one after another. It is a hint for
        the order of service and does not change the scores.
        """
        ...


class GenerateClient(Protocol):
    """A source of samples that a search awaits."""

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        """The samples of `request`; `rounds_left` as in `ScoreClient.score`."""
        ...


class Observer(Protocol):
    """Called for every change of every task, on the driver's event loop; must return quickly."""

    def __call__(self, progress: Progress) -> None: ...
