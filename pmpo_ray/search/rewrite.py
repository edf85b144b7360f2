"""Rewriting for hard cases: the model proposes better instructions (BCA; paper: Algorithm 1, steps 2 and 3).

Invariant: refused texts are requested again at most `search.reasks` times, each time with another seed.
"""

from __future__ import annotations

from dataclasses import replace

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.engines import RewriterConfig
from pmpo_ray.errors import EngineError
from pmpo_ray.search.budget import Allowance, shrunk, tokens_of
from pmpo_ray.search.meta_prompts import Style, parse_rewrite, rewrite_prompt, rewrite_shots
from pmpo_ray.search.operators import REWRITE, Proposal
from pmpo_ray.search.relevance import judging_cost, relevant
from pmpo_ray.search.round import Round
from pmpo_ray.search.seeds import seed_of
from pmpo_ray.types import Candidate, GenerateRequest, GenerateResult, ScoredCandidate


async def rewrite(current: Round, count: int, allowance: Allowance) -> list[Candidate]:
    """The rewrites of every parent that passed the gate: up to `count` for each parent, spread evenly over
    its hard cases (k requests of n samples in the paper), fewer where the allowance does not suffice."""
    settings = current.setup.settings
    each, further = divmod(count, settings.hard_examples)
    pending = [
        (parent, index, samples)
        for parent in current.parents
        for place, index in enumerate(current.hard_cases(parent))
        if (samples := each + (place < further))
    ]
    accepted: list[Candidate] = []
    for attempt in range(settings.reasks + 1):
        requests = [_request(parent, index, count, attempt, current) for parent, index, count in pending]
        scoring = tokens_of(current.parents[0]) + judging_cost(current)
        affordable = shrunk(
            requests,
            allowance.left - scoring * len(accepted),
            written=current.finished.written_per_text,
            scoring=scoring,
        )
        current.cut = current.cut or affordable != requests
        replies = await gather_or_cancel(_reply(request, current) for request in affordable)
        admitted = []
        for (parent, index, _), request, reply in zip(pending, affordable, replies, strict=False):
            example = current.setup.split.train[index]
            if isinstance(reply, GenerateResult):
                allowance.spend(reply.prompt_tokens + reply.tokens)
            made = (
                current.admit(parent, replace(proposal, hard_case=example.id), REWRITE)
                for proposal in _proposals(request, reply, current)
            )
            admitted.append([candidate for candidate in made if candidate is not None])
        kept = await relevant(admitted, current, allowance)
        accepted += [candidate for candidates in kept for candidate in candidates]
        pending = [
            (parent, index, request.n - len(candidates))
            for (parent, index, _), request, candidates in zip(pending, affordable, kept, strict=False)
            if len(candidates) < request.n
        ]
        if not pending:
            break
    return accepted


async def _reply(request: GenerateRequest, current: Round) -> GenerateResult | EngineError:
    try:
        return await current.generate(request)
    except EngineError as error:
        return error


def _proposals(
    request: GenerateRequest, reply: GenerateResult | EngineError, current: Round
) -> list[Proposal]:
    """The rewrites in a reply; the error in place of each if there is none."""
    if isinstance(reply, EngineError):
        return [Proposal("", fault=str(reply))] * request.n
    style = current.setup.style
    proposals = []
    for sample in reply.samples:
        parsed = parse_rewrite(sample.text, finished=sample.finished, style=style)
        proposals.append(
            Proposal(sample.text, fault=parsed.reason) if parsed.text is None else Proposal(parsed.text)
        )
    return proposals


def _request(
    parent: ScoredCandidate, index: int, count: int, attempt: int, current: Round
) -> GenerateRequest:
    setup, example = current.setup, current.setup.split.train[index]
    return rewrite_request(
        rewrite_prompt(
            setup.style,
            description=setup.task.description,
            instruction=parent.candidate.text,
            example=example,
            importances=current.importances(parent),
            max_chars=setup.settings.max_instruction_chars,
        ),
        setup.style,
        setup.sampling,
        count=count,
        seed=seed_of(setup.seed, setup.task.name, current.number, parent.candidate.id, example.id, attempt),
    )


def rewrite_request(
    prompt: str, style: Style, sampling: RewriterConfig, *, count: int, seed: int
) -> GenerateRequest:
    """The request for `count` answers to a meta-prompt in this style."""
    return GenerateRequest(
        prompt=prompt,
        n=count,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=seed,
        # A model that diagnoses first may mention the tag before it gives its answer.
        stop=("</prompt>",) if style == "short" else (),
        shots=rewrite_shots(style),
    )
