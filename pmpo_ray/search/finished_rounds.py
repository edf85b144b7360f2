"""The finished rounds of a search and what the next rounds need from them.

Invariants:
- Every round is held once, here. Only the survivors of the last round keep their scores per example.
- Everything is derived from the records, so a continued search has the same state as an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Iterable

from pmpo_ray.search.bandit import Yield, yields
from pmpo_ray.search.gate import NOT_RELEVANT, identity
from pmpo_ray.types import WRITING_OPERATORS, RoundRecord, ScoredCandidate, SegmentImportance

MASK_DROP = "mask_drop"
"""The operator of candidates that mask analysis makes."""


LEADERS = 3
"""The number of candidates among which a validation part picks."""


def leaders(records: Iterable[RoundRecord]) -> dict[str, ScoredCandidate]:
    """The last candidates that were the best after a round, by id, the oldest first: those among which a
    validation part picks."""
    best = (record.scored_survivors[0] for record in records)
    found = {scored.candidate.id: scored for scored in best}
    return dict(list(found.items())[-LEADERS:])


class FinishedRounds:
    """The records of a search, and what is kept of them: `known` holds the identities of what may not be
    proposed again, `losses` the loss of every text with its demonstrations that was scored on all examples,
    `surprisals` the surprisal of every text that was read, in nats per token, `importances` the mask analysis
    of every analysed candidate, by its id, and `yields` what each operator brought in each round from round 1
    on."""

    def __init__(self, records: Iterable[RoundRecord] = ()) -> None:
        self.records: list[RoundRecord] = []
        self.known: set[str] = set()
        self.losses: dict[tuple[str, tuple[str, ...]], float] = {}
        self.surprisals: dict[str, float] = {}
        self.importances: dict[str, tuple[SegmentImportance, ...]] = {}
        self.yields: list[dict[str, Yield]] = []
        for record in records:
            self.add(record)

    def add(self, record: RoundRecord) -> None:
        """Append a round; the one before it loses its scores per example."""
        if self.records:
            self.yields.append(yields(record, self.survivors[0].value))
        self.records[-1:] = [earlier.slim() for earlier in self.records[-1:]]
        self.records.append(record.slim(record.survivors))
        for scored in record.candidates:
            candidate = scored.candidate
            self.known.add(identity(candidate.text, candidate.shots))
            if scored.surprisal is not None:
                self.surprisals.setdefault(candidate.text, scored.surprisal)
            if not scored.left:
                self.losses[candidate.text, candidate.shots] = scored.loss
        # A proposal that the scorer has read, or could not read, is not sent again; a masked text never was a
        # proposal.
        self.known.update(
            identity(refusal.text, refusal.shots)
            for refusal in record.refusals
            if (refusal.status == "failed" or refusal.reason == NOT_RELEVANT)
            and refusal.operator != MASK_DROP
        )
        for row in record.segments:
            self.importances[row.candidate] = (*self.importances.get(row.candidate, ()), row)

    @property
    def survivors(self) -> tuple[ScoredCandidate, ...]:
        """The survivors of the last round, best first: the parents of the next one."""
        return self.records[-1].scored_survivors

    @property
    def best_losses(self) -> tuple[float, ...]:
        """The loss of the best candidate after each round."""
        return tuple(record.scored_survivors[0].loss for record in self.records)

    @property
    def best_values(self) -> tuple[float, ...]:
        """The value of the best candidate after each round."""
        return tuple(record.scored_survivors[0].value for record in self.records)

    @property
    def tokens_scored(self) -> int:
        return sum(record.tokens_scored for record in self.records)

    @property
    def tokens_prompted(self) -> int:
        return sum(record.tokens_prompted for record in self.records)

    @property
    def tokens_generated(self) -> int:
        return sum(record.tokens_generated for record in self.records)

    @property
    def tokens(self) -> int:
        """Everything that counts towards the token budget."""
        return sum(record.tokens for record in self.records)

    @property
    def tokens_per_second(self) -> float | None:
        """The pace of the rounds that rewrite; None before the first."""
        rounds = self.records[1:]
        seconds = sum(record.seconds for record in rounds)
        return sum(record.tokens for record in rounds) / seconds if seconds > 0 else None

    @property
    def written_per_text(self) -> float | None:
        """Tokens that the rewriter wrote for a text of a writer, mask analysis included; None before the
        first."""
        texts = sum(
            operator in WRITING_OPERATORS
            for record in self.records
            for operator in (
                *(one.candidate.operator for one in record.candidates if one.candidate.round == record.round),
                *(refusal.operator for refusal in record.refusals),
            )
        )
        return self.tokens_generated / texts if texts else None

    @property
    def seconds(self) -> float:
        return sum(record.seconds for record in self.records)
