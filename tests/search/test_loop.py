"""The search of one task over the simulated engine: its rounds, and how it continues."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from pmpo_ray.config.engines import RewriterConfig
from pmpo_ray.config.search import SearchConfig
from pmpo_ray.config.tasks import SplitConfig, TaskConfig
from pmpo_ray.engines.simulated.engine import SimulatedGenerator, SimulatedScorer
from pmpo_ray.errors import EngineError
from pmpo_ray.outcomes import Progress
from pmpo_ray.search.hard_cases import HardCaseContext, load_hard_cases
from pmpo_ray.search.loop import SearchOutcome, search_task
from pmpo_ray.search.objectives import make_objective
from pmpo_ray.search.sense import SenseGate
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.tasks import load_task, split_task
from pmpo_ray.text import normalise
from pmpo_ray.types import Example, ExampleScore, GenerateRequest, GenerateResult, RoundRecord, ScoreRequest
from tests.run_folders import REWRITING


@dataclass
class LocalScorer:
    """A ScoreClient around an engine of this process; it notes its requests."""

    engine: SimulatedScorer = field(default_factory=lambda: SimulatedScorer("simulated"))
    seen: list[tuple[str, tuple[Example, ...]]] = field(default_factory=list)

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        self.seen.append((request.instruction, request.examples))
        # Replies arrive in another order than the requests, as from a pool.
        await asyncio.sleep((hash(request.instruction) % 7) / 10_000)
        return self.engine.score(request).scores


@dataclass
class LocalGenerator:
    engine: SimulatedGenerator = field(default_factory=lambda: SimulatedGenerator("simulated"))
    seen: list[GenerateRequest] = field(default_factory=list)

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        self.seen.append(request)
        await asyncio.sleep((request.seed % 7) / 10_000)
        return self.engine.generate([request])[0]


STARTS = (
    "Which desk?",
    "Check each message carefully, compare the options step by step, and answer with exactly one of them.",
)
"""Further start instructions, of which the simulated engine likes the last one best."""


class RefusingScorer(LocalScorer):
    """Cannot score instructions that contain a certain word: the request is at fault, not the replica."""

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        if "step" in request.instruction:
            raise EngineError("the instruction is too long for the context")
        return await super().score(request, rounds_left=rounds_left)


class DriverDiedError(Exception):
    """The driver died."""


def setup_of(
    scorer: LocalScorer | None = None,
    generator: LocalGenerator | None = None,
    *,
    seen: list[Progress] | None = None,
    die_after: int | None = None,
    kept: list[RoundRecord] | None = None,
    gate: SenseGate | None = None,
    starts: tuple[str, ...] = (),
    **settings: object,
) -> SearchSetup:
    task = replace(load_task(TaskConfig(name="tickets"), None, 0), starts=starts)
    search = SearchConfig.model_validate({"rounds": 3, **REWRITING, **settings})
    ticks = iter(range(10_000_000))

    async def keep(record: RoundRecord, _rounds: Sequence[RoundRecord]) -> None:
        if die_after is not None and record.round > die_after:
            raise DriverDiedError
        if kept is not None:
            kept.append(record)

    return SearchSetup(
        task=task,
        split=split_task(task, SplitConfig(train_max=12, validation=0), 0),
        objective=make_objective("preference", beta=1.0, per_token=False),
        style="short",
        settings=search,
        sampling=RewriterConfig(),
        seed=0,
        scorer=scorer or LocalScorer(),
        rewriter=generator or LocalGenerator(),
        keep=keep,
        observer=(seen if seen is not None else []).append,
        clock=lambda: float(next(ticks)),
        hard_cases=load_hard_cases(search.hard_cases),
        sense=gate,
    )


def texts(outcome: SearchOutcome) -> list[str]:
    return [scored.candidate.text for record in outcome.records for scored in record.candidates]


@pytest.mark.parametrize("masking", ["rules", "off"])
async def test_a_search_without_operators_has_masked_texts_alone(masking: str) -> None:
    outcome = await search_task(setup_of(operators=[], masking=masking, rounds=2))
    found = {one.candidate.operator for record in outcome.records for one in record.candidates}
    assert found == ({"seed", "mask_drop"} if masking == "rules" else {"seed"})


async def test_every_rewrite_names_the_hard_case_that_it_was_written_for() -> None:
    setup = setup_of(hard_examples=2, variants=3, masking="off")
    outcome = await search_task(setup)
    train = setup.split.train
    for record, before in zip(outcome.records[1:], outcome.records, strict=False):
        written = [one.candidate for one in record.candidates if one.candidate.round == record.round]
        named = {one.hard_case for one in (*written, *record.refusals)}
        assert len(named) == 2
        if len(before.scored_survivors[0].losses) == len(train):
            hardest = sorted(zip(before.scored_survivors[0].losses, train, strict=True), key=lambda p: -p[0])
            assert named == {example.id for _, example in hardest[:2]}
    assert outcome.records[0].candidates[0].candidate.hard_case is None


async def test_hard_cases_are_chosen_once_a_round_for_all_operators() -> None:
    @dataclass
    class Counting:
        rounds: list[int] = field(default_factory=list)

        def choose(self, context: HardCaseContext) -> Sequence[int]:
            self.rounds.append(context.round)
            return range(context.count)

    counting = Counting()
    setup = setup_of(operators=["rewrite", "contrast", "induce"], masking="off", population=1)
    await search_task(replace(setup, hard_cases=counting))
    assert counting.rounds == [1, 2, 3]


async def test_losses_never_rise_and_the_best_is_better_than_the_start() -> None:
    outcome = await search_task(setup_of())
    best = [record.scored_survivors[0].loss for record in outcome.records]
    assert best == sorted(best, reverse=True)
    assert outcome.best.loss < outcome.start.loss
    assert outcome.stopped == "rounds"
    assert len(outcome.records) == 4


async def test_a_round_analyses_rewrites_for_the_hardest_and_keeps_every_reason() -> None:
    generator = LocalGenerator()
    kept: list[RoundRecord] = []
    setup = setup_of(None, generator, kept=kept, rounds=1, hard_examples=2, variants=3, reasks=0)
    await search_task(setup)
    record = kept[1]
    start = kept[0].candidates[0]
    assert {row.candidate for row in record.segments} == {start.candidate.id}
    assert 2 <= len(record.segments) <= 5
    dropped = [s for s in record.candidates if s.candidate.operator == "mask_drop"]
    for scored in dropped:
        assert scored.loss - start.loss in {row.importance for row in record.segments}
    worst = sorted(range(len(start.losses)), key=lambda i: -start.losses[i])[:2]
    rewrites = [request for request in generator.seen if request.n == 3]
    for index, request in zip(worst, rewrites, strict=True):
        assert setup.split.train[index].target in request.prompt
    made = [s for s in record.candidates if s.candidate.operator == "rewrite"]
    refused = [r for r in record.refusals if r.operator == "rewrite"]
    assert len(made) + len(refused) == 6
    assert all(refusal.reason for refusal in refused)


async def test_refused_rewrites_are_requested_again_a_bounded_number_of_times() -> None:
    none = await search_task(setup_of(rounds=1, reasks=0))
    more = await search_task(setup_of(rounds=1, reasks=3))
    assert len(more.records[1].candidates) > len(none.records[1].candidates)
    refused = len([r for r in none.records[1].refusals if r.operator == "rewrite"])
    asked = sum(1 for r in more.records[1].refusals if r.operator == "rewrite")
    assert refused <= asked <= 4 * refused


async def test_no_text_is_scored_twice_and_no_test_example_is_ever_seen() -> None:
    scorer = LocalScorer()
    setup = setup_of(scorer, rounds=3, population=2)
    outcome = await search_task(setup)
    scored = [normalise(text) for text, _ in scorer.seen]
    candidates = {normalise(text) for text in texts(outcome)}
    assert all(scored.count(text) == 1 for text in candidates)
    held_out = set(setup.split.test)
    assert not any(held_out & set(examples) for _, examples in scorer.seen)


async def test_every_start_is_scored_and_the_best_of_them_is_rewritten() -> None:
    kept: list[RoundRecord] = []
    outcome = await search_task(setup_of(starts=STARTS, rounds=1, kept=kept))
    first, second = kept
    assert [one.candidate.id for one in first.candidates] == ["r0000-0000", "r0000-0001", "r0000-0002"]
    assert all(one.candidate.lineage == one.candidate.id for one in first.candidates)
    assert {(one.candidate.operator, one.candidate.parent) for one in first.candidates} == {("seed", None)}
    assert first.survivors == ("r0000-0002",)
    assert first.tokens_scored == sum(score.tokens for one in first.candidates for score in one.scores)
    # What results are compared with is the first, wherever the best comes from.
    assert outcome.start.candidate.text == setup_of().task.instruction
    made = [one.candidate for one in second.candidates if one.candidate.round == 1]
    assert made
    assert {(one.parent, one.lineage) for one in made} == {("r0000-0002", "r0000-0002")}
    assert outcome.best.loss <= first.scored_survivors[0].loss < outcome.start.loss


async def test_starts_are_never_raced_and_survive_as_candidates_do() -> None:
    setup = setup_of(starts=STARTS, rounds=0, population=2, max_siblings=1, racing=0.5)
    wide = replace(setup, split=split_task(setup.task, SplitConfig(train_max=40, validation=0), 0))
    [record] = (await search_task(wide)).records
    assert not any(one.left for one in record.candidates)
    by_loss = sorted(record.candidates, key=lambda one: one.loss)
    assert record.scored_survivors == tuple(by_loss[:2])


async def test_a_start_that_cannot_be_scored_is_an_error() -> None:
    with pytest.raises(EngineError, match="too long"):
        await search_task(setup_of(RefusingScorer(), starts=STARTS))


@pytest.mark.parametrize("starts", [(), ("Which desk?", "Read it, and choose only one.")])
@pytest.mark.parametrize("stop_at", [0, 1, 2])
@pytest.mark.parametrize("population", [1, 3])
@pytest.mark.parametrize("scorer", [LocalScorer, RefusingScorer])
async def test_a_continued_search_equals_an_undisturbed_one(
    starts: tuple[str, ...], stop_at: int, population: int, scorer: type[LocalScorer]
) -> None:
    settings = {"population": population, "variants": 4, "hard_examples": 4}
    whole = await search_task(setup_of(scorer(), starts=starts, **settings))
    kept: list[RoundRecord] = []
    with pytest.raises(DriverDiedError):
        await search_task(setup_of(scorer(), die_after=stop_at, kept=kept, starts=starts, **settings))
    assert len(kept) == stop_at + 1
    continued = await search_task(setup_of(scorer(), starts=starts, **settings), kept)

    def content(records: Sequence[RoundRecord]) -> list[object]:
        return [
            (r.round, r.candidates, r.survivors, r.refusals, r.segments, r.tokens_scored, r.tokens_generated)
            for r in records
        ]

    assert content(continued.records) == content(whole.records)


async def test_a_population_keeps_several_lineages_of_candidates() -> None:
    outcome = await search_task(setup_of(population=4, max_siblings=2, rounds=2))
    survivors = outcome.records[-1].scored_survivors
    assert len(survivors) > 1
    assert [s.loss for s in survivors] == sorted(s.loss for s in survivors)
    parents = [s.candidate.parent for s in survivors]
    assert all(parents.count(parent) <= 2 for parent in parents if parent is not None)


async def test_the_ablation_switches_change_the_requests() -> None:
    scorer, generator = LocalScorer(), LocalGenerator()
    plain = await search_task(setup_of(scorer, generator, rounds=1, masking="off"))
    assert not plain.records[1].segments
    assert not any("<mask>" in request.prompt for request in generator.seen)
    other = LocalGenerator()
    await search_task(setup_of(None, other, rounds=1, masking="off", hard_cases="random"))
    assert {r.prompt for r in other.seen} != {r.prompt for r in generator.seen}


async def test_masked_texts_with_a_token_are_measured_but_never_survive() -> None:
    outcome = await search_task(setup_of(rounds=1, mask_mode="token"))
    assert outcome.records[1].segments
    assert not any("[MASK]" in text for text in texts(outcome))


async def test_a_candidate_that_cannot_be_scored_fails_alone() -> None:
    outcome = await search_task(setup_of(RefusingScorer(), rounds=2))
    failed = [r for record in outcome.records for r in record.refusals if r.status == "failed"]
    assert failed
    assert all("too long" in refusal.reason for refusal in failed)
    assert outcome.stopped == "rounds"


class BrokenScorer(LocalScorer):
    """Fails on the first candidate after the start instruction; counts the requests that it cancelled."""

    cancelled = 0

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        self.seen.append((request.instruction, request.examples))
        if len(self.seen) == 1:
            return self.engine.score(request).scores
        if len(self.seen) == 2:
            raise DriverDiedError
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        raise AssertionError("a request outlived the search")


async def test_an_error_that_ends_the_search_cancels_its_outstanding_requests() -> None:
    scorer = BrokenScorer()
    with pytest.raises(DriverDiedError):
        await search_task(setup_of(scorer))
    assert len(scorer.seen) == 2 + scorer.cancelled


async def test_rounds_are_held_once_and_without_the_scores_of_past_candidates() -> None:
    lengths: list[int] = []

    async def keep(record: RoundRecord, rounds: Sequence[RoundRecord]) -> None:
        assert all(scored.scores for scored in record.candidates)
        assert (rounds[-1].round, rounds[-1].survivors) == (record.round, record.survivors)
        assert all(scored.scores for scored in rounds[-1].scored_survivors)
        assert not any(scored.scores for earlier in rounds[:-1] for scored in earlier.candidates)
        lengths.append(len(rounds))

    outcome = await search_task(replace(setup_of(population=2), keep=keep))
    assert lengths == [1, 2, 3, 4]
    assert len(outcome.records) == 4


class NarrowGenerator(LocalGenerator):
    """A rewriter whose context is too short for any prompt."""

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        raise EngineError(f"the prompt of {len(request.prompt)} characters leaves no room")


async def test_a_rewriter_with_too_short_a_context_leaves_the_rules_and_their_masks() -> None:
    outcome = await search_task(setup_of(None, NarrowGenerator(), rounds=1))
    assert outcome.records[1].segments
    refusals = outcome.records[1].refusals
    assert refusals
    assert all("leaves no room" in refusal.reason for refusal in refusals)


async def test_budgets_stop_between_rounds() -> None:
    assert (await search_task(setup_of(max_tokens=1))).stopped == "token budget"
    assert (await search_task(setup_of(max_seconds=1e-3))).stopped == "time budget"
    assert (await search_task(setup_of(target_loss=1e9))).stopped == "target loss"
    assert (await search_task(setup_of(rounds=0))).stopped == "rounds"


async def test_observers_see_every_state_and_rising_rounds() -> None:
    seen: list[Progress] = []
    await search_task(setup_of(seen=seen, rounds=2))
    assert [p.state for p in seen][:4] == ["scoring", "masking", "rewriting", "scoring"]
    assert seen[-1].state == "done"
    assert [p.round for p in seen] == sorted(p.round for p in seen)
    assert len(seen[-1].losses) == 3
