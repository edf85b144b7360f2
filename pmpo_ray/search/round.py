"""A round in the making.

Invariants: ids are given out in the order of asking; whatever is written for a round is counted in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pmpo_ray.protocols import GenerateClient
from pmpo_ray.search.selection import candidate_id
from pmpo_ray.types import (
    Candidate,
    GenerateRequest,
    GenerateResult,
    Refusal,
    ScoredCandidate,
    SegmentImportance,
)


@dataclass(slots=True)
class Round:
    """A round in the making."""

    number: int
    began: float
    parents: tuple[ScoredCandidate, ...]
    children: list[ScoredCandidate] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    segments: list[SegmentImportance] = field(default_factory=list)
    tokens_scored: int = 0
    tokens_generated: int = 0
    ids: int = 0

    def next_id(self) -> str:
        self.ids += 1
        return candidate_id(self.number, self.ids - 1)


@dataclass(frozen=True, slots=True)
class CountedRewriter:
    """The rewriter as a proposer sees it: what it writes is this round's."""

    rewriter: GenerateClient
    now: Round
    rounds_left: int

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        answer = await self.rewriter.generate(request, rounds_left=rounds_left or self.rounds_left)
        self.now.tokens_generated += answer.tokens
        return answer


def refusal_of(candidate: Candidate, reason: str, *, failed: bool = False) -> Refusal:
    """What is kept of a text that was turned down, or could not be scored."""
    return Refusal(
        id=candidate.id,
        text=candidate.text,
        parent=candidate.parent or candidate.id,
        lineage=candidate.lineage,
        operator=candidate.operator,
        reason=reason,
        status="failed" if failed else "refused",
    )
