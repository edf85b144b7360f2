"""Scores of examples of which a few may not fit into the model's context.

Invariant: an error of a few examples costs their scores alone; an error of more is raised.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pmpo_ray.errors import DataError, EngineError
from pmpo_ray.protocols import ScoreClient
from pmpo_ray.types import ExampleScore, ScoreRequest

_SHARE = 10
"""One example in so many may fail."""

Score = ExampleScore | None


async def scored_apart(scorer: ScoreClient, request: ScoreRequest) -> tuple[Score, ...]:
    """The score of every example, None for one that cannot be scored.

    A request that fails is repeated in halves, down to the examples at fault: only some engines tell lengths.
    Raises the EngineError or DataError of an example if more than one in ten fails, or all do.
    """
    allowed = min(len(request.examples) - 1, 1 + len(request.examples) // _SHARE)
    return await _Search(scorer, allowed).scores(request)


@dataclass(slots=True)
class _Search:
    """The search for the examples at fault, of which `allowed` may still be found."""

    scorer: ScoreClient
    allowed: int

    async def scores(self, request: ScoreRequest) -> tuple[Score, ...]:
        examples = request.examples
        try:
            return await self.scorer.score(request)
        except (EngineError, DataError):
            if len(examples) == 1:
                self.allowed -= 1
            if self.allowed < 0:
                raise
        if len(examples) == 1:
            return (None,)
        middle = len(examples) // 2
        # One after the other: a request that always fails is given up early.
        return (
            *await self.scores(replace(request, examples=examples[:middle])),
            *await self.scores(replace(request, examples=examples[middle:])),
        )
