"""Scoring candidates on the training examples.

Invariant: a candidate's loss is the batch loss over all training examples, in their order, or, if it left the
race, over those of its blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.errors import DataError, EngineError
from pmpo_ray.search.budget import Prices
from pmpo_ray.search.objectives import batch_loss
from pmpo_ray.search.racing import blocks_of, leaving
from pmpo_ray.search.readability import read, unread_cost, weighted
from pmpo_ray.search.round import Round
from pmpo_ray.types import Candidate, ExampleScore, ScoredCandidate, ScoreRequest


async def score(candidate: Candidate, current: Round) -> ScoredCandidate:
    """The candidate with its losses on all examples. Raises EngineError or DataError if it cannot be
    scored."""
    for error in (await read([candidate.text], current)).values():
        raise error
    runner = _Runner(candidate, current)
    await runner.run(range(len(current.setup.split.train)))
    return runner.scored()


async def score_all(
    candidates: Sequence[Candidate], current: Round, left: float | None = None
) -> list[ScoredCandidate]:
    """Score candidates concurrently, as many as `left` tokens suffice for (None: all that the budget leaves);
    the others are recorded as refused. One that cannot be scored is recorded as failed, with the reason; any
    other error cancels the rest and propagates. With racing, some are scored on the first examples alone:
    those that lose, and, where the tokens do not suffice to go on with all, those of the highest values."""
    purse = await _Purse.of(candidates, current, current.left if left is None else left)

    async def attempt(runner: _Runner, rows: Sequence[int]) -> _Runner | None:
        try:
            await runner.run(rows)
        except (EngineError, DataError) as error:
            current.refuse(runner.candidate, str(error), failed=True)
            return None
        return runner

    settings, train = current.setup.settings, current.setup.split.train
    weights = [example.weight for example in train]
    running = [_Runner(candidate, current) for candidate in candidates]
    done: list[_Runner] = []
    blocks = blocks_of(train, settings.racing)
    for number, rows in enumerate(blocks):
        if purse is not None:
            paid = purse.affordable(running, blocks[number:])
            unpaid = [runner for runner in running if runner.candidate.id not in paid]
            running = [runner for runner in running if runner.candidate.id in paid]
            current.cut = current.cut or bool(unpaid)
            done += [runner for runner in unpaid if runner.scores]
            for runner in unpaid:
                if not runner.scores:
                    current.refuse(runner.candidate, current.tightest)
        if number == 0:
            running = await _read(running, current)
        # All of a block before the next one: so the decisions do not depend on who answers first.
        attempts = await gather_or_cancel(attempt(runner, rows) for runner in running)
        running = [runner for runner in attempts if runner is not None]
        if not running or len(running[0].scores) == len(train):
            break
        scored = [runner.scored() for runner in running]
        out = leaving(scored, current.parents, list(running[0].scores), weights, settings)
        done += [runner for runner in running if runner.candidate.id in out]
        running = [runner for runner in running if runner.candidate.id not in out]
    return sorted((runner.scored() for runner in (*done, *running)), key=lambda one: one.candidate.id)


async def _read(running: Sequence[_Runner], current: Round) -> list[_Runner]:
    """The candidates whose texts were read; the others are recorded as failed."""
    errors = await read([runner.candidate.text for runner in running], current)
    for runner in running:
        if (error := errors.get(runner.candidate.text)) is not None:
            current.refuse(runner.candidate, str(error), failed=True)
    return [runner for runner in running if runner.candidate.text not in errors]


@dataclass(frozen=True, slots=True)
class _Purse:
    """The tokens for the scoring of candidates: `left` when `spent` tokens of the round were spent."""

    prices: Prices
    current: Round
    left: float
    spent: int

    @classmethod
    async def of(cls, candidates: Sequence[Candidate], current: Round, left: float) -> _Purse | None:
        """None if there is no budget."""
        if math.isinf(left):
            return None
        prices = await current.costs.prices(candidates, current.parents[0])
        return cls(prices, current, left, current.tokens_scored)

    def affordable(self, running: Sequence[_Runner], blocks: Sequence[Sequence[int]]) -> set[str]:
        """The ids of the candidates that may be scored on the first of the blocks: as many as fit, together
        with the rest of one of them, whichever it will be. The lowest values come first."""
        first = not any(runner.scores for runner in running)
        rest = [row for rows in blocks[1:] for row in rows]
        left = self.left - (self.current.tokens_scored - self.spent)
        paid: set[str] = set()
        costs = reserve = 0
        for runner in running if first else sorted(running, key=lambda one: one.scored().value):
            cost = self.prices.of(runner.candidate, blocks[0], first=first)
            cost += unread_cost(runner.candidate.text, self.current)
            kept = max(reserve, self.prices.of(runner.candidate, rest, first=False))
            if costs + cost + kept <= left:
                costs, reserve = costs + cost, kept
                paid.add(runner.candidate.id)
        return paid


@dataclass(slots=True)
class _Runner:
    """A candidate that is being scored: its scores so far, by the index of the example, before calibration,
    and those of the calibration's own examples."""

    candidate: Candidate
    current: Round
    scores: dict[int, ExampleScore] = field(default_factory=dict)
    blanks: tuple[ExampleScore, ...] = ()

    async def run(self, rows: Sequence[int]) -> None:
        """Score these examples, and with the first ones those of the calibration."""
        current, setup = self.current, self.current.setup
        split, calibration = setup.split, setup.calibration
        blanks = calibration.blanks if calibration is not None and not self.scores else ()
        examples = (*(split.train[row] for row in rows), *blanks)
        request = ScoreRequest(self.candidate.text, examples, split.demonstrations(self.candidate.shots))
        scores = await setup.scorer.score(request, rounds_left=current.rounds_left)
        current.tokens_scored += sum(score.tokens for score in scores)
        self.scores |= zip(rows, scores[: len(rows)], strict=True)
        self.blanks = scores[len(rows) :] or self.blanks

    def scored(self) -> ScoredCandidate:
        """The candidate with its losses so far."""
        setup, train = self.current.setup, self.current.setup.split.train
        rows = sorted(self.scores)
        examples = [train[row] for row in rows]
        scores = tuple(self.scores[row] for row in rows)
        if setup.calibration is not None:
            scores = setup.calibration.applied(examples, scores, self.blanks)
        losses = dict(zip(rows, map(setup.objective, scores), strict=True))
        loss = batch_loss(list(losses.values()), [example.weight for example in examples])
        if len(rows) == len(train):
            whole = ScoredCandidate(self.candidate, scores, tuple(losses.values()), loss)
            return weighted(whole, self.current)
        every = tuple(losses.get(row, math.nan) for row in range(len(train)))
        return weighted(ScoredCandidate(self.candidate, (), every, loss, left=len(rows)), self.current)
