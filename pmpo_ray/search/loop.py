"""One task's optimisation, round by round (paper: Algorithm 1), over the protocols alone.

Invariants:
- A round depends on the rounds before it, the seed and what the engines answer; not on the order in which
  answers arrive. So a search that is continued from its records goes on as if it had never stopped.
- Only training examples and shots are ever seen here; the test part is not.
- A rewrite whose text was scored before is refused as a duplicate, not scored again.
- Of the rounds that are stored only the last survivors' scores are held in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pmpo_ray.config.engines import RewriterConfig
from pmpo_ray.config.search import SearchConfig
from pmpo_ray.errors import DataError, EngineError
from pmpo_ray.protocols import GenerateClient, Observer, ScoreClient
from pmpo_ray.search.gate import normalise, refusal_reason
from pmpo_ray.search.masking import mask_prompt, parse_masked, rule_segments, without
from pmpo_ray.search.meta_prompts import Style, parse_rewrite, rewrite_prompt, rewrite_shots
from pmpo_ray.search.objectives import Objective, batch_loss
from pmpo_ray.search.operators import REWRITE, ProposalContext, Proposer, proposed
from pmpo_ray.search.round import CountedRewriter, Round, refusal_of
from pmpo_ray.search.seeds import seed_of
from pmpo_ray.search.selection import hardest, select_survivors, stop_reason
from pmpo_ray.types import (
    Candidate,
    GenerateRequest,
    Operator,
    Progress,
    RoundRecord,
    ScoredCandidate,
    ScoreRequest,
    Segment,
    SegmentImportance,
    Split,
    State,
    Task,
)

_MASK_TOKENS_PER_CHAR = 0.5


@dataclass(frozen=True, slots=True)
class SearchSetup:
    """Everything a search needs. `keep` stores a finished round before the next one begins; `clock` gives
    seconds; `proposers` are operators of the user's own, by name."""

    task: Task
    split: Split
    objective: Objective
    style: Style
    settings: SearchConfig
    sampling: RewriterConfig
    seed: int
    scorer: ScoreClient
    rewriter: GenerateClient
    keep: Callable[[RoundRecord], Awaitable[None]]
    observer: Observer
    clock: Callable[[], float]
    proposers: Mapping[str, Proposer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """All rounds of a search, and why it ended. The records hold the scores of the last survivors alone."""

    records: tuple[RoundRecord, ...]
    stopped: str

    @property
    def start(self) -> ScoredCandidate:
        """The instruction that the search began with."""
        return self.records[0].candidates[0]

    @property
    def best(self) -> ScoredCandidate:
        """The best survivor of the last round."""
        return self.records[-1].scored_survivors[0]


_Proposals = tuple[ScoredCandidate, str, list[tuple[str, str]]]
"""A parent, the name of an operator, and what it proposed: each (text, "") or ("", why there is none)."""


async def search_task(setup: SearchSetup, history: Sequence[RoundRecord] = ()) -> SearchOutcome:
    """Optimise one task's instruction, going on from `history` where there is one.

    Raises EngineError or DataError where the start instruction itself cannot be scored.
    """
    return await _Search(setup, history).run()


class _Search:
    def __init__(self, setup: SearchSetup, history: Sequence[RoundRecord]) -> None:
        self._setup = setup
        self._records = [record.slim() for record in history[:-1]]
        self._records += [record.slim(record.survivors) for record in history[-1:]]
        self._weights = [example.weight for example in setup.split.train]
        self._known: dict[str, str] = {}
        self._losses: dict[str, float] = {}
        self._analysed: dict[str, tuple[SegmentImportance, ...]] = {}
        for record in history:
            self._remember(record)

    async def run(self) -> SearchOutcome:
        if not self._records:
            await self._finish(await self._first_round())
        while (reason := self._stop()) is None:
            await self._finish(await self._next_round())
        self._report("done", len(self._records) - 1)
        return SearchOutcome(tuple(self._records), reason)

    async def _finish(self, record: RoundRecord) -> None:
        await self._setup.keep(record)
        self._records[-1:] = [earlier.slim() for earlier in self._records[-1:]]
        self._records.append(record.slim(record.survivors))
        self._remember(record)

    def _remember(self, record: RoundRecord) -> None:
        for scored in record.candidates:
            self._known.setdefault(normalise(scored.candidate.text), scored.candidate.id)
            self._losses[scored.candidate.text] = scored.loss
        for row in record.segments:
            self._analysed[row.candidate] = (*self._analysed.get(row.candidate, ()), row)

    def _stop(self) -> str | None:
        settings = self._setup.settings
        return stop_reason(
            [record.scored_survivors[0].loss for record in self._records],
            rounds=settings.rounds,
            patience=settings.patience,
            target_loss=settings.target_loss,
            tokens=sum(record.tokens_scored + record.tokens_generated for record in self._records),
            max_tokens=settings.max_tokens,
            seconds=sum(record.seconds for record in self._records),
            max_seconds=settings.max_seconds,
        )

    async def _first_round(self) -> RoundRecord:
        self._report("scoring", 0)
        now = Round(0, self._setup.clock(), ())
        name = now.next_id()
        seed = Candidate(name, self._setup.task.instruction, None, name, "seed", 0)
        now.children.append(await self._score(seed, now))
        return self._record(now)

    async def _next_round(self) -> RoundRecord:
        now = Round(len(self._records), self._setup.clock(), self._records[-1].scored_survivors)
        if self._setup.settings.masking != "off":
            self._report("masking", now.number, now)
            await self._analyse(now)
        self._report("rewriting", now.number, now)
        rewrites, proposals = await asyncio.gather(self._rewrite(now), self._propose(now))
        self._report("scoring", now.number, now)
        await self._score_all([*rewrites, *self._admitted(proposals, now)], now)
        return self._record(now)

    def _record(self, now: Round) -> RoundRecord:
        settings = self._setup.settings
        survivors = select_survivors(
            now.parents, now.children, size=settings.population, max_siblings=settings.max_siblings
        )
        return RoundRecord(
            task=self._setup.task.name,
            round=now.number,
            candidates=(*now.parents, *sorted(now.children, key=lambda scored: scored.candidate.id)),
            survivors=tuple(scored.candidate.id for scored in survivors),
            refusals=tuple(sorted(now.refusals, key=lambda refusal: refusal.id)),
            segments=tuple(now.segments),
            tokens_scored=now.tokens_scored,
            tokens_generated=now.tokens_generated,
            seconds=self._setup.clock() - now.began,
        )

    def _rounds_left(self, now: Round) -> int:
        """This round and those after it: what waits for its work."""
        return self._setup.settings.rounds - now.number + 1

    # Scoring

    async def _score(self, candidate: Candidate, now: Round) -> ScoredCandidate:
        split = self._setup.split
        request = ScoreRequest(candidate.text, split.train, split.shots)
        scores = await self._setup.scorer.score(request, rounds_left=self._rounds_left(now))
        now.tokens_scored += sum(score.tokens for score in scores)
        losses = tuple(self._setup.objective(score) for score in scores)
        return ScoredCandidate(candidate, scores, losses, batch_loss(losses, self._weights))

    async def _score_all(self, candidates: Sequence[Candidate], now: Round) -> list[ScoredCandidate]:
        """Score candidates together; one that can't be scored is kept as failed, with the reason."""
        tasks = [asyncio.ensure_future(self._score(candidate, now)) for candidate in candidates]
        try:
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
        scored = []
        for candidate, outcome in zip(candidates, outcomes, strict=True):
            if isinstance(outcome, EngineError | DataError):
                now.refusals.append(refusal_of(candidate, str(outcome), failed=True))
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                scored.append(outcome)
        now.children += scored
        return scored

    # Mask analysis (TIM)

    async def _analyse(self, now: Round) -> None:
        """dL_j of every unit of every parent that was not analysed in an earlier round."""
        fresh = [parent for parent in now.parents if parent.candidate.id not in self._analysed]
        split = await asyncio.gather(*(self._segments(parent, now) for parent in fresh))
        masked = [
            (parent, index, segment, text)
            for parent, segments in zip(fresh, split, strict=True)
            for index, segment in enumerate(segments)
            if (text := self._without(parent.candidate.text, segment)).strip()
        ]
        children: dict[str, Candidate] = {}
        for parent, _, _, text in masked:
            if text not in self._losses and text not in children:
                children[text] = self._child(parent, text, "mask_drop", now)
        # Only what a record keeps is remembered beyond the round: a continued search knows no more.
        losses = dict(self._losses)
        for scored in await self._score_all(list(children.values()), now):
            losses[scored.candidate.text] = scored.loss
        for parent, index, segment, text in masked:
            if text in losses:
                change = losses[text] - parent.loss
                now.segments.append(SegmentImportance(parent.candidate.id, index, segment, change))
        self._sift_masked(now)

    def _sift_masked(self, now: Round) -> None:
        """Of the masked texts that were just scored, keep those that can stand as instructions."""
        kept = []
        for scored in now.children:
            text = normalise(scored.candidate.text)
            if self._setup.settings.mask_mode == "drop" and text not in self._known:
                self._known[text] = scored.candidate.id
                kept.append(scored)
        now.children = kept

    async def _segments(self, parent: ScoredCandidate, now: Round) -> tuple[Segment, ...]:
        settings, text = self._setup.settings, parent.candidate.text
        if settings.masking == "model":
            request = GenerateRequest(
                prompt=mask_prompt(text, settings.max_segments),
                max_tokens=64 + int(_MASK_TOKENS_PER_CHAR * len(text)),
                temperature=0.0,
            )
            try:
                reply = await self._setup.rewriter.generate(request, rounds_left=self._rounds_left(now))
            except EngineError:
                # The instruction is too long for the rewriter's context: the rules have no such limit.
                return rule_segments(text, settings.max_segments)
            now.tokens_generated += reply.tokens
            found = parse_masked(reply.samples[0].text, text, settings.max_segments)
            if found is not None:
                return found
        return rule_segments(text, settings.max_segments)

    def _without(self, text: str, segment: Segment) -> str:
        settings = self._setup.settings
        return without(text, segment, mode=settings.mask_mode, mask_token=settings.mask_token)

    # Rewriting (BCA)

    async def _rewrite(self, now: Round) -> list[Candidate]:
        """New texts that passed the gate; what it refused is asked for again, `reasks` times at most."""
        settings = self._setup.settings
        wanted = [
            (parent, index, settings.variants)
            for parent in now.parents
            if REWRITE in settings.operators
            for index in self._hardest(parent, now)
        ]
        accepted: list[Candidate] = []
        for attempt in range(settings.reasks + 1):
            asked = [self._ask(parent, index, n, attempt, now) for parent, index, n in wanted]
            refused = []
            for (parent, index, _), texts in zip(wanted, await asyncio.gather(*asked), strict=True):
                passed = [self._admit(parent, text, reason, REWRITE, now) for text, reason in texts]
                accepted += [candidate for candidate in passed if candidate is not None]
                if missing := passed.count(None):
                    refused.append((parent, index, missing))
            wanted = refused
            if not wanted:
                break
        return accepted

    def _hardest(self, parent: ScoredCandidate, now: Round) -> tuple[int, ...]:
        settings = self._setup.settings
        return hardest(
            parent.losses,
            self._setup.split.train,
            settings.hard_examples,
            seed_key=f"{self._setup.seed}/{self._setup.task.name}/{now.number}/{parent.candidate.id}",
            by_loss=settings.hard_case_selection,
        )

    async def _ask(
        self, parent: ScoredCandidate, index: int, n: int, attempt: int, now: Round
    ) -> list[tuple[str, str]]:
        """n replies for one hard example: each as (text, "") or (reply, reason for its refusal)."""
        setup, example = self._setup, self._setup.split.train[index]
        prompt = rewrite_prompt(
            setup.style,
            description=setup.task.description,
            instruction=parent.candidate.text,
            example=example,
            importances=self._importances(parent, now),
            max_chars=setup.settings.max_instruction_chars,
        )
        request = GenerateRequest(
            prompt=prompt,
            n=n,
            max_tokens=setup.sampling.max_tokens,
            temperature=setup.sampling.temperature,
            top_p=setup.sampling.top_p,
            seed=seed_of(setup.seed, setup.task.name, now.number, parent.candidate.id, example.id, attempt),
            # A model that diagnoses first may name the tag before it gives its answer.
            stop=("</prompt>",) if setup.style == "short" else (),
            shots=rewrite_shots(setup.style),
        )
        try:
            answer = await setup.rewriter.generate(request, rounds_left=self._rounds_left(now))
        except EngineError as error:
            return [("", str(error))] * n
        now.tokens_generated += answer.tokens
        replies = [parse_rewrite(s.text, finished=s.finished, style=setup.style) for s in answer.samples]
        return [
            (reply.text, "") if reply.text is not None else (sample.text, reply.reason)
            for reply, sample in zip(replies, answer.samples, strict=True)
        ]

    def _importances(self, parent: ScoredCandidate, now: Round) -> tuple[SegmentImportance, ...]:
        name = parent.candidate.id
        return self._analysed.get(name) or tuple(row for row in now.segments if row.candidate == name)

    # Operators of the user's own

    async def _propose(self, now: Round) -> list[_Proposals]:
        asked = [(name, parent) for parent in now.parents for name in self._setup.proposers]
        answers = await asyncio.gather(
            *(
                proposed(name, self._setup.proposers[name], self._context(parent, name, now))
                for name, parent in asked
            )
        )
        return [(parent, name, texts) for (name, parent), texts in zip(asked, answers, strict=True)]

    def _admitted(self, proposals: Sequence[_Proposals], now: Round) -> list[Candidate]:
        """Those that pass the gate; after the rewrites, so that ids do not depend on who was done first."""
        passed = [
            self._admit(parent, text, reason, name, now)
            for parent, name, texts in proposals
            for text, reason in texts
        ]
        return [candidate for candidate in passed if candidate is not None]

    def _context(self, parent: ScoredCandidate, name: str, now: Round) -> ProposalContext:
        setup = self._setup
        return ProposalContext(
            description=setup.task.description,
            parent=parent,
            examples=setup.split.train,
            hardest=tuple(setup.split.train[index] for index in self._hardest(parent, now)),
            importances=self._importances(parent, now),
            rewriter=CountedRewriter(setup.rewriter, now, self._rounds_left(now)),
            max_chars=setup.settings.max_instruction_chars,
            round=now.number,
            seed=seed_of(setup.seed, setup.task.name, now.number, parent.candidate.id, name),
        )

    # What becomes of a text

    def _admit(
        self, parent: ScoredCandidate, text: str, reason: str, operator: Operator, now: Round
    ) -> Candidate | None:
        child = self._child(parent, text, operator, now)
        why = reason or refusal_reason(
            text,
            known=self._known,
            examples=self._setup.split.train,
            max_chars=self._setup.settings.max_instruction_chars,
            allowed=parent.candidate.text,
        )
        if why:
            now.refusals.append(refusal_of(child, why))
            return None
        self._known[normalise(text)] = child.id
        return child

    def _child(self, parent: ScoredCandidate, text: str, operator: Operator, now: Round) -> Candidate:
        origin = parent.candidate
        return Candidate(now.next_id(), text, origin.id, origin.lineage, operator, now.number)

    def _report(self, state: State, number: int, now: Round | None = None) -> None:
        self._setup.observer(
            Progress(
                task=self._setup.task.name,
                state=state,
                round=number,
                rounds=self._setup.settings.rounds,
                losses=tuple(record.scored_survivors[0].loss for record in self._records),
                tokens_scored=sum(r.tokens_scored for r in self._records) + (now.tokens_scored if now else 0),
                tokens_generated=sum(r.tokens_generated for r in self._records)
                + (now.tokens_generated if now else 0),
            )
        )
