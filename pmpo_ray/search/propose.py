"""The new candidates of a round: what writers and other operators propose and the gate lets pass.

Every operator makes `search.hard_examples` x `search.variants` proposals for each parent, or, with
`search.bandit`, a part of as many in all as its gains in earlier rounds earn it.

Invariant: written texts are admitted before other proposals, and those in the order of parents and operators;
so ids do not depend on which reply arrived first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.errors import DataError, EngineError
from pmpo_ray.search.bandit import counts, shares
from pmpo_ray.search.budget import Allowance, highest_cost, tokens_of
from pmpo_ray.search.operators import Proposal, ProposalContext, checked, operator_names
from pmpo_ray.search.round import Round
from pmpo_ray.search.seeds import seed_of
from pmpo_ray.search.writing import write
from pmpo_ray.types import Candidate, GenerateRequest, GenerateResult, ScoredCandidate


async def new_candidates(current: Round) -> list[Candidate]:
    """Run all operators concurrently; return the candidates that passed the gate."""
    wanted = _wanted(current)
    calls = [(parent, name) for parent in current.parents for name in current.setup.proposers if wanted[name]]
    # Fixed parts, so that what one may spend does not depend on who is served first.
    part = current.left / max(1, len(current.parents) * sum(wanted.values()))
    written: list[Candidate] = []
    replies: list[list[Proposal]] = []

    async def run_writers() -> None:
        written.extend(await write(current, wanted, part))

    async def run_operators() -> None:
        replies.extend(
            await gather_or_cancel(
                _proposals(parent, name, current, wanted[name], Allowance(part * wanted[name]))
                for parent, name in calls
            )
        )

    await gather_or_cancel([run_writers(), run_operators()])
    admitted = [
        current.admit(parent, proposal, name)
        for (parent, name), proposals in zip(calls, replies, strict=True)
        for proposal in proposals
    ]
    return [*written, *(candidate for candidate in admitted if candidate is not None)]


def _wanted(current: Round) -> dict[str, int]:
    """The number of proposals for a parent by operator."""
    settings = current.setup.settings
    operators = operator_names(settings.named_operators, current.setup.proposers)
    each = settings.hard_examples * settings.variants
    if not settings.bandit or not operators:
        return dict.fromkeys(operators, each)
    return counts(each * len(operators), shares(current.finished.yields, operators))


async def _proposals(
    parent: ScoredCandidate, name: str, current: Round, count: int, allowance: Allowance
) -> list[Proposal]:
    """The proposals of the operator `name`; the reason if it has none."""
    context = _context(parent, name, current, count, allowance)
    try:
        proposals = await current.setup.proposers[name].propose(context)
    except (EngineError, DataError) as error:
        return [Proposal("", fault=str(error))]
    return checked(proposals, name, current.setup.split.train)


def _context(
    parent: ScoredCandidate, name: str, current: Round, count: int, allowance: Allowance
) -> ProposalContext:
    setup = current.setup
    return ProposalContext(
        description=setup.task.description,
        parent=parent,
        examples=setup.split.train,
        hardest=tuple(setup.split.train[index] for index in current.hard_cases(parent)),
        importances=current.importances(parent),
        rewriter=_CountedRewriter(current, allowance),
        max_chars=setup.settings.max_instruction_chars,
        round=current.number,
        seed=seed_of(setup.seed, setup.task.name, current.number, parent.candidate.id, name),
        count=count,
        survivors=current.parents,
        history=tuple(current.finished.records),
    )


@dataclass(frozen=True, slots=True)
class _CountedRewriter:
    """The rewriter that an operator gets: its tokens are counted in the round, and a request for which
    the allowance does not suffice raises EngineError."""

    current: Round
    allowance: Allowance

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        reserved = 0 if math.isinf(self.allowance.left) else highest_cost(request)
        if reserved + tokens_of(self.current.parents[0]) > self.allowance.left:
            self.current.cut = True
            raise EngineError("the budget leaves no tokens for this request")
        self.allowance.spend(reserved)
        reply = await self.current.generate(request, rounds_left=rounds_left)
        self.allowance.spend(reply.prompt_tokens + reply.tokens - reserved)
        return reply
