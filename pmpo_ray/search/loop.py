"""The optimisation of one task, round by round (paper: Algorithm 1), over the protocols only.

Invariants:
- A round depends on the rounds before it, the seed and the replies of the engines, not on the order in which
  replies arrive. So a search that is continued from its records continues as if it had never stopped.
- The search sees only training examples and shots, never the test part.
- A rewrite whose text was scored before is refused as a duplicate, not scored again.
- Every round is held once; of the stored rounds only the last survivors' scores are held in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.outcomes import Progress, State
from pmpo_ray.search.budget import check_first
from pmpo_ray.search.finished_rounds import FinishedRounds
from pmpo_ray.search.mask_analysis import analyse
from pmpo_ray.search.propose import new_candidates
from pmpo_ray.search.readability import reading_cost
from pmpo_ray.search.round import Round
from pmpo_ray.search.scoring import score, score_all
from pmpo_ray.search.selection import select_survivors, stop_reason
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.types import Candidate, RoundRecord, ScoredCandidate


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """All rounds of a search, and why it ended. The records hold only the scores of the last survivors."""

    records: tuple[RoundRecord, ...]
    stopped: str

    @property
    def start(self) -> ScoredCandidate:
        """The instruction that results are compared with: the first of those that the search began with."""
        return self.records[0].candidates[0]

    @property
    def best(self) -> ScoredCandidate:
        """The best survivor of the last round."""
        return self.records[-1].scored_survivors[0]


async def search_task(setup: SearchSetup, history: Sequence[RoundRecord] = ()) -> SearchOutcome:
    """Optimise one task's instruction, continuing from the records `history`, if any.

    Raises EngineError or DataError if a start instruction itself cannot be scored, also because the token
    budget does not suffice.
    """
    finished = FinishedRounds(history)
    del history  # It may be the last reference to the scores of all stored rounds.
    if not finished.records:
        await _finish(await _first_round(setup, finished), setup, finished)
    while (reason := _stop_reason(setup, finished)) is None:
        record = await _next_round(setup, finished)
        if isinstance(record, str):
            reason = record
            break
        await _finish(record, setup, finished)
    _report("done", setup, finished)
    return SearchOutcome(tuple(finished.records), reason)


async def _first_round(setup: SearchSetup, finished: FinishedRounds) -> RoundRecord:
    """Round 0: every start instruction is scored, none of them raced. Each begins a lineage of its own."""
    current = Round(setup, finished, number=0, began=setup.clock(), parents=())
    _report("scoring", setup, finished, current)
    texts = setup.task.instructions
    if setup.settings.max_tokens is not None:
        cost = await current.costs.first(texts) + reading_cost(setup.task, setup.settings, texts)
        check_first(setup.task, cost, setup.settings.max_tokens)
    names = [current.next_id() for _ in texts]
    seeds = [Candidate(name, text, None, name, "seed", 0) for name, text in zip(names, texts, strict=True)]
    current.children += await gather_or_cancel(score(seed, current) for seed in seeds)
    return current.record(_survivors(current))


async def _next_round(setup: SearchSetup, finished: FinishedRounds) -> RoundRecord | str:
    """One round of Algorithm 1: analyse segments, propose for hard cases, gate, score, select. Or the name of
    the budget that leaves nothing to do."""
    parents = finished.survivors
    current = Round(setup, finished, len(finished.records), setup.clock(), parents)
    if setup.settings.masking != "off":
        _report("masking", setup, finished, current)
        await analyse(current)
    _report("rewriting", setup, finished, current)
    candidates = await new_candidates(current)
    _report("scoring", setup, finished, current)
    current.children += await score_all(candidates, current)
    if current.cut and not current.tokens:
        return current.tightest
    return current.record(_survivors(current))


def _survivors(current: Round) -> tuple[ScoredCandidate, ...]:
    settings = current.setup.settings
    finishers = [child for child in current.children if not child.left]
    return select_survivors(
        current.parents, finishers, size=settings.population, max_siblings=settings.max_siblings
    )


async def _finish(record: RoundRecord, setup: SearchSetup, finished: FinishedRounds) -> None:
    finished.add(record)
    await setup.keep(record, finished.records)


def _stop_reason(setup: SearchSetup, finished: FinishedRounds) -> str | None:
    settings = setup.settings
    return stop_reason(
        finished.best_losses,
        finished.best_values,
        rounds=settings.rounds,
        patience=settings.patience,
        target_loss=settings.target_loss,
        tokens=finished.tokens,
        max_tokens=settings.max_tokens,
        seconds=finished.seconds,
        max_seconds=settings.max_seconds,
    )


def _report(state: State, setup: SearchSetup, finished: FinishedRounds, current: Round | None = None) -> None:
    progress = Progress(
        task=setup.task.name,
        state=state,
        round=current.number if current else len(finished.records) - 1,
        rounds=setup.settings.rounds,
        losses=finished.best_losses,
        tokens_scored=finished.tokens_scored + (current.tokens_scored if current else 0),
        tokens_prompted=finished.tokens_prompted + (current.tokens_prompted if current else 0),
        tokens_generated=finished.tokens_generated + (current.tokens_generated if current else 0),
    )
    setup.observer(progress)
