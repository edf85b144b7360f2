"""Asking a model to write: one loop for all writers (`pmpo_ray.search.writers`).

The requests of all writers are sent at the same time. When all are answered, the texts meet the gate in the
order of the requests, and what the scorer finds irrelevant is taken out. Then the next try begins: a request
is sent again for those of its texts that were refused.

Invariants: refused texts are requested again at most `search.reasks` times, each time with another seed; ids
of requests and of texts do not depend on which reply arrived first; what a writer may spend does not depend
on the other writers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.engines import RewriterConfig
from pmpo_ray.errors import EngineError
from pmpo_ray.search.budget import Allowance, shrunk, tokens_of
from pmpo_ray.search.meta_prompts import Style, parse_rewrite, shortened
from pmpo_ray.search.operators import Proposal
from pmpo_ray.search.relevance import judging_cost, relevant
from pmpo_ray.search.round import Round
from pmpo_ray.search.seeds import seed_of
from pmpo_ray.search.writers import WRITERS
from pmpo_ray.search.writers.writer import Ask, Writer, WritingContext
from pmpo_ray.types import (
    Candidate,
    Example,
    GenerateRequest,
    GenerateResult,
    ScoredCandidate,
    WritingRequest,
)

_KEPT_CHARS = 20_000
"""Characters of a meta-prompt that a run keeps; of longer ones the middle is left out."""


async def write(current: Round, wanted: Mapping[str, int], part: float) -> list[Candidate]:
    """The texts of all writers that passed the gate. `wanted` has the number of texts for each parent by
    operator, which are fewer where the tokens do not suffice: `part` of them for each text and parent."""
    jobs = [
        _Job.of(current, name, writer, wanted[name], Allowance(part * wanted[name] * len(current.parents)))
        for name, writer in WRITERS.items()
        if wanted.get(name)
    ]
    accepted: list[Candidate] = []
    for attempt in range(current.setup.settings.reasks + 1):
        sent = [job.send(attempt) for job in jobs]
        if not any(sent):
            break
        replies = iter(await gather_or_cancel(_reply(one.request, current) for job in sent for one in job))
        admitted = [
            [job.admitted(one, next(replies)) for one in requests]
            for job, requests in zip(jobs, sent, strict=True)
        ]
        kept = await gather_or_cancel(
            relevant(groups, current, job.allowance) for job, groups in zip(jobs, admitted, strict=True)
        )
        for job, requests, groups in zip(jobs, sent, kept, strict=True):
            job.take(requests, groups)
            accepted += [candidate for group in groups for candidate in group]
    return accepted


@dataclass(frozen=True, slots=True)
class _Pending:
    """The samples of a request that are still wanted."""

    parent: ScoredCandidate
    ask: Ask
    samples: int


@dataclass(frozen=True, slots=True)
class _Sent:
    """A request that was sent, and its id."""

    pending: _Pending
    request: GenerateRequest
    id: str


@dataclass(slots=True)
class _Job:
    """The work of one writer in a round: what it still asks for, what it may spend, and how many of its texts
    were accepted."""

    current: Round
    name: str
    allowance: Allowance
    shots: tuple[Example, ...]
    pending: list[_Pending]
    accepted: int = 0

    @classmethod
    def of(cls, current: Round, name: str, writer: Writer, count: int, allowance: Allowance) -> _Job:
        asks = (
            (parent, ask)
            for parent in current.parents
            for ask in writer.requests(_context(current, name, parent, count))
        )
        pending = [_Pending(parent, ask, ask.samples) for parent, ask in asks]
        return cls(current, name, allowance, writer.shots(current.setup.style), pending)

    def send(self, attempt: int) -> list[_Sent]:
        """The requests for what is pending, as many as the allowance suffices for. The round records them."""
        current = self.current
        requests = [self._request(one, attempt) for one in self.pending]
        scoring = tokens_of(current.parents[0]) + judging_cost(current)
        affordable = shrunk(
            requests,
            self.allowance.left - scoring * self.accepted,
            written=current.finished.written_per_text,
            scoring=scoring,
        )
        current.cut = current.cut or affordable != requests
        sent = []
        for pending, request in zip(self.pending, affordable, strict=False):
            ask = pending.ask
            number = current.next_request()
            current.requests.append(
                WritingRequest(
                    id=number,
                    operator=self.name,
                    parent=pending.parent.candidate.id,
                    hard_case=ask.hard_case,
                    examples=ask.examples,
                    attempt=attempt,
                    samples=request.n,
                    prompt=shortened(request.prompt, _KEPT_CHARS),
                )
            )
            sent.append(_Sent(pending, request, number))
        return sent

    def _request(self, pending: _Pending, attempt: int) -> GenerateRequest:
        current, parent = self.current, pending.parent.candidate
        setup = current.setup
        seed = seed_of(setup.seed, setup.task.name, current.number, parent.id, *pending.ask.key, attempt)
        return writing_request(
            pending.ask.prompt, self.shots, setup.style, setup.sampling, count=pending.samples, seed=seed
        )

    def admitted(self, sent: _Sent, reply: GenerateResult | EngineError) -> list[Candidate]:
        """The texts in a reply that pass the gate; the round records the others."""
        if isinstance(reply, GenerateResult):
            self.allowance.spend(reply.prompt_tokens + reply.tokens)
        hard_case = sent.pending.ask.hard_case
        made = (
            self.current.admit(
                sent.pending.parent, replace(proposal, hard_case=hard_case), self.name, sent.id
            )
            for proposal in _proposals(sent.request, reply, self.current.setup.style)
        )
        return [candidate for candidate in made if candidate is not None]

    def take(self, sent: Sequence[_Sent], kept: Sequence[Sequence[Candidate]]) -> None:
        """Count the texts that are kept of each request; the others are pending again."""
        self.accepted += sum(map(len, kept))
        self.pending = [
            _Pending(one.pending.parent, one.pending.ask, one.request.n - len(texts))
            for one, texts in zip(sent, kept, strict=True)
            if len(texts) < one.request.n
        ]


def _context(current: Round, name: str, parent: ScoredCandidate, count: int) -> WritingContext:
    setup = current.setup
    return WritingContext(
        style=setup.style,
        task=setup.task,
        parent=parent,
        examples=setup.split.train,
        hard_cases=current.hard_cases(parent),
        importances=current.importances(parent),
        survivors=current.parents,
        history=tuple(current.finished.records),
        count=count,
        hard_examples=setup.settings.hard_examples,
        max_chars=setup.settings.max_instruction_chars,
        per_token=setup.settings.per_token is True,
        seed=seed_of(setup.seed, setup.task.name, current.number, parent.candidate.id, name),
    )


async def _reply(request: GenerateRequest, current: Round) -> GenerateResult | EngineError:
    try:
        return await current.generate(request)
    except EngineError as error:
        return error


def _proposals(
    request: GenerateRequest, reply: GenerateResult | EngineError, style: Style
) -> Iterator[Proposal]:
    """The texts in a reply; the error in place of each if there is none."""
    if isinstance(reply, EngineError):
        yield from [Proposal("", fault=str(reply))] * request.n
        return
    for sample in reply.samples:
        parsed = parse_rewrite(sample.text, finished=sample.finished, style=style)
        yield Proposal(sample.text, fault=parsed.reason) if parsed.text is None else Proposal(parsed.text)


def writing_request(
    prompt: str, shots: tuple[Example, ...], style: Style, sampling: RewriterConfig, *, count: int, seed: int
) -> GenerateRequest:
    """The request for `count` answers to a meta-prompt in this style, behind the turns `shots`."""
    return GenerateRequest(
        prompt=prompt,
        n=count,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=seed,
        # A model that diagnoses first may mention the tag before it gives its answer.
        stop=("</prompt>",) if style == "short" else (),
        shots=shots,
    )
