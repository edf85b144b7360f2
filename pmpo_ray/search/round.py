"""A round in the making.

Invariants: ids are assigned in the order of the requests, not of the replies; every token that the scorer
reads or the rewriter writes for a round is counted in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from pmpo_ray.search.budget import SECONDS, TOKENS, Costs
from pmpo_ray.search.finished_rounds import LEADERS, FinishedRounds, leaders
from pmpo_ray.search.gate import identity, refusal_reason
from pmpo_ray.search.hard_cases import HardCaseContext
from pmpo_ray.search.operators import Proposal
from pmpo_ray.search.seeds import seed_of
from pmpo_ray.search.selection import candidate_id
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.types import (
    Candidate,
    GenerateRequest,
    GenerateResult,
    Operator,
    Refusal,
    RoundRecord,
    ScoredCandidate,
    SegmentImportance,
    WritingRequest,
)


@dataclass(slots=True)
class Round:
    """A round in the making: its parents, and what was made from them so far."""

    setup: SearchSetup
    finished: FinishedRounds
    number: int
    began: float
    parents: tuple[ScoredCandidate, ...]
    children: list[ScoredCandidate] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    segments: list[SegmentImportance] = field(default_factory=list)
    requests: list[WritingRequest] = field(default_factory=list)
    surprisals: dict[str, float] = field(default_factory=dict)
    """The surprisals of the texts that were read in this round, in nats per token."""
    tokens_scored: int = 0
    tokens_prompted: int = 0
    tokens_generated: int = 0
    ids: int = 0
    cut: bool = False
    """True if work was left out because a budget did not suffice for it."""
    _hard_cases: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Everything that counts towards the token budget."""
        return self.tokens_scored + self.tokens_prompted + self.tokens_generated

    @property
    def left(self) -> float:
        """The tokens that the budgets leave for this round, without those that the final pick takes."""
        return min(self._budgets.values())

    @property
    def tightest(self) -> str:
        """The name of the budget that leaves least."""
        budgets = self._budgets
        return min(budgets, key=budgets.__getitem__)

    @property
    def _budgets(self) -> dict[str, float]:
        """The tokens that each budget leaves."""
        settings, pace = self.setup.settings, self.finished.tokens_per_second
        tokens = seconds = math.inf
        if settings.max_tokens is not None:
            tokens = settings.max_tokens - self.finished.tokens - self.tokens
        if settings.max_seconds is not None and pace is not None:
            seconds = (settings.max_seconds - self.finished.seconds) * pace - self.tokens
        kept = 0
        if self.setup.split.validation and self.parents and not math.isinf(min(tokens, seconds)):
            known = self.parents[0]
            compared = [lead.candidate for lead in leaders(self.finished.records).values()]
            costs = [self.costs.of_validation(known, lead) for lead in compared]
            # The leader after this round may be another one, in the place of the oldest.
            kept = max(sum(costs), sum(costs[1 - LEADERS :]) + max(costs))
        return {TOKENS: tokens - kept, SECONDS: seconds - kept}

    @property
    def costs(self) -> Costs:
        return Costs(self.setup.split, self.setup.measure, self.setup.settings.calibrates)

    @property
    def rounds_left(self) -> int:
        """The number of rounds that wait for the work of this one, itself included."""
        return self.setup.settings.rounds - self.number + 1

    def is_read(self, text: str) -> bool:
        """True if the surprisal of the text is known."""
        return text in self.surprisals or text in self.finished.surprisals

    def surprisal(self, text: str) -> float:
        """The surprisal of a text that was read, in nats per token. Raises KeyError for another one."""
        found = self.finished.surprisals.get(text)
        return self.surprisals[text] if found is None else found

    def next_id(self) -> str:
        self.ids += 1
        return candidate_id(self.number, self.ids - 1)

    def next_request(self) -> str:
        """The id of the next request, such as "002.03"."""
        return f"{self.number:03d}.{len(self.requests) + 1:02d}"

    def child(
        self, parent: ScoredCandidate, proposal: Proposal, operator: Operator, request: str | None = None
    ) -> Candidate:
        """A new candidate with the next id, in answer to the request with this id, if any."""
        origin = parent.candidate
        shots = origin.shots if proposal.shots is None else proposal.shots
        return Candidate(
            self.next_id(),
            proposal.text,
            origin.id,
            origin.lineage,
            operator,
            self.number,
            shots,
            proposal.hard_case,
            request,
        )

    def admit(
        self, parent: ScoredCandidate, proposal: Proposal, operator: Operator, request: str | None = None
    ) -> Candidate | None:
        """The proposal, in answer to the request with this id, if any, as a candidate if it passes the gate;
        otherwise None, and the refusal is recorded."""
        child = self.child(parent, proposal, operator, request)
        reason = (
            proposal.fault
            or refusal_reason(
                child.text,
                shots=child.shots,
                known=self.finished.known,
                examples=self.setup.split.train,
                max_chars=self.setup.settings.max_instruction_chars,
                allowed=parent.candidate.text,
            )
            or self.nonsense_reason(child, parent)
        )
        if reason:
            self.refuse(child, reason)
            return None
        self.finished.known.add(identity(child.text, child.shots))
        return child

    def nonsense_reason(self, child: Candidate, parent: ScoredCandidate) -> str | None:
        """The reason why a text is no instruction; None if it may be one, or if nothing is judged."""
        sense = self.setup.sense
        if sense is None or child.text == parent.candidate.text:
            return None
        return sense.reason(child.text, parent.candidate.text)

    def refuse(self, candidate: Candidate, reason: str, *, failed: bool = False) -> None:
        """Record a text that was refused, or that could not be scored (`failed`)."""
        refusal = Refusal(
            id=candidate.id,
            text=candidate.text,
            parent=candidate.parent or candidate.id,
            lineage=candidate.lineage,
            operator=candidate.operator,
            reason=reason,
            status="failed" if failed else "refused",
            shots=candidate.shots,
            hard_case=candidate.hard_case,
            request=candidate.request,
        )
        self.refusals.append(refusal)

    def hard_cases(self, parent: ScoredCandidate) -> tuple[int, ...]:
        """Indices of the training examples that the parent is rewritten for, the hardest first. They are
        chosen once, for all operators."""
        setup, name = self.setup, parent.candidate.id
        if name in self._hard_cases:
            return self._hard_cases[name]
        context = HardCaseContext(
            parent=parent,
            population=self.parents,
            examples=setup.split.train,
            count=setup.settings.hard_examples,
            round=self.number,
            seed=seed_of(setup.seed, setup.task.name, self.number, name, "hard cases"),
            history=tuple(self.finished.records),
        )
        return self._hard_cases.setdefault(name, tuple(setup.hard_cases.choose(context)))

    def importances(self, parent: ScoredCandidate) -> tuple[SegmentImportance, ...]:
        """The mask analysis of the parent, from this round or an earlier one; empty without masking."""
        name = parent.candidate.id
        return self.finished.importances.get(name) or tuple(
            row for row in self.segments if row.candidate == name
        )

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        """A reply of the rewriter, counted in this round."""
        reply = await self.setup.rewriter.generate(request, rounds_left=rounds_left or self.rounds_left)
        self.tokens_prompted += reply.prompt_tokens
        self.tokens_generated += reply.tokens
        return reply

    def record(self, survivors: Sequence[ScoredCandidate]) -> RoundRecord:
        """The finished round. Rows are in the order of their ids, whatever order the replies arrived in."""
        return RoundRecord(
            task=self.setup.task.name,
            round=self.number,
            candidates=(*self.parents, *sorted(self.children, key=lambda scored: scored.candidate.id)),
            survivors=tuple(scored.candidate.id for scored in survivors),
            refusals=tuple(sorted(self.refusals, key=lambda refusal: refusal.id)),
            segments=tuple(self.segments),
            requests=tuple(self.requests),
            tokens_scored=self.tokens_scored,
            tokens_prompted=self.tokens_prompted,
            tokens_generated=self.tokens_generated,
            seconds=self.setup.clock() - self.began,
        )
