"""Scoring candidates on the training examples.

Invariant: a candidate's loss is the batch loss over all training examples, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.errors import DataError, EngineError
from pmpo_ray.search.budget import fitting
from pmpo_ray.search.objectives import batch_loss
from pmpo_ray.search.round import Round
from pmpo_ray.types import Candidate, ScoredCandidate, ScoreRequest


async def score(candidate: Candidate, current: Round) -> ScoredCandidate:
    """The candidate with its losses. Raises EngineError or DataError if it cannot be scored."""
    setup, split = current.setup, current.setup.split
    request = ScoreRequest(candidate.text, split.train, split.demonstrations(candidate.shots))
    scores = await setup.scorer.score(request, rounds_left=current.rounds_left)
    current.tokens_scored += sum(score.tokens for score in scores)
    losses = tuple(setup.objective(score) for score in scores)
    weights = [example.weight for example in split.train]
    return ScoredCandidate(candidate, scores, losses, batch_loss(losses, weights))


async def score_all(
    candidates: Sequence[Candidate], current: Round, left: float | None = None
) -> list[ScoredCandidate]:
    """Score candidates concurrently, as many as `left` tokens suffice for (None: all that the budget leaves);
    the others are recorded as refused. One that cannot be scored is recorded as failed, with the reason; any
    other error cancels the rest and propagates."""
    left = current.left if left is None else left
    if not math.isinf(left):
        costs = await current.costs.of(candidates, current.parents[0])
        number = fitting(costs, left)
        for candidate in candidates[number:]:
            current.refuse(candidate, current.tightest)
        current.cut = current.cut or number < len(candidates)
        candidates = candidates[:number]

    async def attempt(candidate: Candidate) -> ScoredCandidate | None:
        try:
            return await score(candidate, current)
        except (EngineError, DataError) as error:
            current.refuse(candidate, str(error), failed=True)
            return None

    attempts = await gather_or_cancel(attempt(candidate) for candidate in candidates)
    return [scored for scored in attempts if scored is not None]
