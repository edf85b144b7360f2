"""Mask analysis: the importance of every segment of an instruction (TIM; paper: Algorithm 1, step 1).

dL_j is the loss without segment j less the loss of the whole instruction: above 0 the segment helps.

Invariants: a candidate is analysed once; a masked text is scored once, and none that a record already holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.errors import EngineError
from pmpo_ray.search.budget import Allowance, fitting, highest_cost
from pmpo_ray.search.finished_rounds import MASK_DROP
from pmpo_ray.search.gate import identity
from pmpo_ray.search.masking import mask_prompt, parse_masked, rule_segments, without
from pmpo_ray.search.operators import Proposal
from pmpo_ray.search.racing import rise
from pmpo_ray.search.round import Round
from pmpo_ray.search.scoring import score_all
from pmpo_ray.types import (
    Candidate,
    GenerateRequest,
    GenerateResult,
    ScoredCandidate,
    Segment,
    SegmentImportance,
)

_MASK_TOKENS_PER_CHAR = 0.5
_MASK_TOKENS = 64
"""Tokens for the tags and a remark in a reply that repeats the instruction."""


async def analyse(current: Round) -> None:
    """Compute dL_j for every segment of every parent that was not analysed in an earlier round. Texts without
    a segment become children of the round, since they are scored anyway."""
    setup, finished = current.setup, current.finished
    parents = [parent for parent in current.parents if parent.candidate.id not in finished.importances]
    # The other half is for the candidates that the analysis is made for.
    allowance = Allowance(current.left / 2)
    requests = [_request(parent, current) for parent in parents] if setup.settings.masking == "model" else []
    number = fitting([highest_cost(request) for request in requests], allowance.left)
    replies = await gather_or_cancel(_reply(request, current) for request in requests[:number])
    allowance.spend(sum(reply.prompt_tokens + reply.tokens for reply in replies if reply is not None))
    current.cut = current.cut or number < len(requests)
    segmented = [
        _segments(parent, reply, setup.settings.max_segments)
        for parent, reply in zip_longest(parents, replies)
    ]
    masked = [
        (parent, index, segment, text)
        for parent, segments in zip(parents, segmented, strict=True)
        for index, segment in enumerate(segments)
        if (text := _without(parent, segment, current)).strip()
    ]
    unscored: dict[tuple[str, tuple[str, ...]], Candidate] = {}
    for parent, _, _, text in masked:
        key = text, parent.candidate.shots
        if key not in finished.losses and key not in unscored:
            unscored[key] = current.child(parent, Proposal(text), MASK_DROP)
    scored = await score_all(list(unscored.values()), current, allowance.left)
    weights = [example.weight for example in setup.split.train]
    new = {(one.candidate.text, one.candidate.shots): one for one in scored}
    for parent, index, segment, text in masked:
        key = text, parent.candidate.shots
        if key in new:
            importance = rise(new[key], parent, weights)
        elif key in finished.losses:
            importance = finished.losses[key] - parent.loss
        else:
            continue
        current.segments.append(SegmentImportance(parent.candidate.id, index, segment, importance))
    if setup.settings.mask_mode == "drop":
        current.children += _unknown(scored, current)


def reply_tokens(characters: int) -> int:
    """The tokens of a reply that marks the segments of an instruction with so many characters, at most."""
    return _MASK_TOKENS + int(_MASK_TOKENS_PER_CHAR * characters)


def _request(parent: ScoredCandidate, current: Round) -> GenerateRequest:
    text = parent.candidate.text
    return GenerateRequest(
        prompt=mask_prompt(text, current.setup.settings.max_segments),
        max_tokens=reply_tokens(len(text)),
        temperature=0.0,
    )


async def _reply(request: GenerateRequest, current: Round) -> GenerateResult | None:
    """The reply; None if the instruction is too long for the rewriter's context."""
    try:
        return await current.generate(request)
    except EngineError:
        return None


def _segments(
    parent: ScoredCandidate, reply: GenerateResult | None, max_segments: int
) -> tuple[Segment, ...]:
    """The segments that the model marked, or those of the rules if there is no usable reply."""
    text = parent.candidate.text
    marked = parse_masked(reply.samples[0].text, text, max_segments) if reply is not None else None
    return rule_segments(text, max_segments) if marked is None else marked


def _without(parent: ScoredCandidate, segment: Segment, current: Round) -> str:
    settings = current.setup.settings
    return without(parent.candidate.text, segment, mode=settings.mask_mode, mask_token=settings.mask_token)


def _unknown(masked: Sequence[ScoredCandidate], current: Round) -> list[ScoredCandidate]:
    """The masked texts that are new, and instructions; they are known from now on. They are scored anyway,
    for the importance of the part that they lack."""
    parents = {parent.candidate.id: parent for parent in current.parents}
    new = []
    for scored in masked:
        candidate = scored.candidate
        key = identity(candidate.text, candidate.shots)
        if key in current.finished.known:
            continue
        reason = current.nonsense_reason(candidate, parents[candidate.parent or ""])
        if reason is not None:
            current.refuse(candidate, reason)
            continue
        current.finished.known.add(key)
        new.append(scored)
    return new
