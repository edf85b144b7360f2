"""The token budget: a search never exceeds it, uses it, and does not depend on who answers first."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.search import SearchConfig
from pmpo_ray.config.tasks import SplitConfig
from pmpo_ray.engines.simulated.engine import SimulatedScorer
from pmpo_ray.errors import DataError
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.runs.finish_task import pick
from pmpo_ray.search.budget import Costs, highest_cost, shrunk
from pmpo_ray.search.demonstrations import Demonstrate
from pmpo_ray.search.finished_rounds import FinishedRounds
from pmpo_ray.search.leave_one_out import LeaveOneOut
from pmpo_ray.search.loop import SearchOutcome, search_task
from pmpo_ray.search.operators import ProposalContext, Proposer
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.tasks import split_task
from pmpo_ray.types import (
    WRITING_OPERATORS,
    ExampleScore,
    GenerateRequest,
    PromptLength,
    RoundRecord,
    ScoredCandidate,
    ScoreRequest,
)
from tests.search.test_loop import STARTS, LocalGenerator, LocalScorer, setup_of

ENGINE = SimulatedScorer("simulated")


async def measure(request: ScoreRequest) -> tuple[PromptLength, ...] | None:
    return ENGINE.lengths(request)


class Asking:
    """An operator that asks the rewriter again and again."""

    async def propose(self, context: ProposalContext) -> list[str]:
        texts = []
        for number in range(5):
            request = GenerateRequest(f"Name number {number}.", max_tokens=40, seed=context.seed + number)
            texts.append((await context.rewriter.generate(request)).samples[0].text)
        return texts


def small(limit: int | None, starts: tuple[str, ...] = (), **changes: object) -> SearchSetup:
    """A search over 12 examples with this budget, whose engine tells lengths."""
    return replace(setup_of(max_tokens=limit, starts=starts, **changes), measure=measure)


def spent(outcome: SearchOutcome) -> int:
    return FinishedRounds(outcome.records).tokens


configurations = st.fixed_dictionaries(
    {
        "rounds": st.integers(1, 6),
        "hard_examples": st.integers(1, 4),
        "variants": st.integers(1, 5),
        "population": st.integers(1, 3),
        "masking": st.sampled_from(["model", "rules", "off"]),
        "mask_mode": st.sampled_from(["drop", "token"]),
        "reasks": st.integers(0, 2),
        "racing": st.sampled_from([None, 0.2]),
        "bandit": st.booleans(),
        "readability": st.sampled_from([None, None, 0.1, 2.0]),
        "operators": st.sampled_from([["rewrite"], ["repair", "shorten"], WRITING_OPERATORS]),
    }
)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(
    limit=st.integers(3000, 100_000),
    starts=st.sampled_from([(), STARTS]),
    changes=configurations,
    tells=st.booleans(),
    asks=st.booleans(),
    validation=st.sampled_from([0, 6]),
    shown=st.integers(0, 4),
)
def test_a_budget_is_never_exceeded(
    limit: int,
    starts: tuple[str, ...],
    changes: dict[str, object],
    tells: bool,
    asks: bool,
    validation: int,
    shown: int,
) -> None:
    # The first instruction costs 2,300 tokens here and the further ones 2,900, which an engine that tells no
    # lengths shows too late.
    limit += 3000 if starts else 0
    # Reading a text takes up to 350.
    limit += 350 * (1 + len(starts)) if changes["readability"] else 0

    async def run() -> int:
        setup = small(limit, starts, **changes)
        split = split_task(setup.task, SplitConfig(train_max=24, validation=validation), 0)
        operators: dict[str, Proposer] = {"Asking": Asking()} if asks else {}
        if shown:
            operators["demonstrate"] = Demonstrate(shown)
        setup = replace(
            setup,
            split=split,
            measure=measure if tells else None,
            scorer=LeaveOneOut(setup.scorer, split.train),
            proposers=operators,
        )
        outcome = await search_task(setup)
        prepared = PreparedTask(setup.task, split, setup.objective, setup.settings, {})
        _, picking = await pick(prepared, outcome, LocalScorer())
        return spent(outcome) + picking

    assert asyncio.run(run()) <= 1.01 * limit


async def test_a_budget_is_used_up_to_less_than_a_small_round() -> None:
    whole = await search_task(small(None, rounds=8))
    limit = spent(whole) // 2
    outcome = await search_task(small(limit, rounds=40))
    assert outcome.stopped == "token budget"
    # What is left would not have sufficed for one rewrite at its longest and its scoring.
    assert 0 <= limit - spent(outcome) < 2500


@pytest.mark.parametrize("limit", [12_000, 16_000, 24_000])
async def test_with_racing_a_budget_pays_for_more_candidates_and_one_is_scored_on_everything(
    limit: int,
) -> None:
    async def tried(racing: float | None) -> list[ScoredCandidate]:
        setup = small(limit, rounds=1, operators=[], masking="off", racing=racing, variants=8)
        split = split_task(setup.task, SplitConfig(train_max=32, validation=0), 0)
        proposers: dict[str, Proposer] = {"demonstrate": Demonstrate(2)}
        outcome = await search_task(
            replace(setup, split=split, proposers=proposers, scorer=LeaveOneOut(setup.scorer, split.train))
        )
        assert spent(outcome) <= limit
        return [one for one in outcome.records[-1].candidates if one.candidate.round == 1]

    whole, raced = await tried(None), await tried(0.2)
    assert whole
    assert len(raced) > len(whole)
    assert any(not one.left for one in raced)


async def test_what_is_sent_does_not_depend_on_who_answers_first() -> None:
    class Backwards(LocalGenerator):
        async def generate(self, request: GenerateRequest, *, rounds_left: int = 0):  # type: ignore[no-untyped-def]
            await asyncio.sleep((7 - request.seed % 7) / 2_000)
            return await super().generate(request, rounds_left=rounds_left)

    one = await search_task(small(20_000, rounds=5))
    other = await search_task(replace(small(20_000, rounds=5), rewriter=Backwards()))
    assert [replace(r, seconds=0.0) for r in one.records] == [replace(r, seconds=0.0) for r in other.records]


async def test_a_continued_search_spends_what_an_undisturbed_one_does() -> None:
    kept: list[RoundRecord] = []
    whole = await search_task(replace(setup_of(kept=kept, max_tokens=20_000, rounds=5), measure=measure))
    again = await search_task(small(20_000, rounds=5), kept[:3])
    assert spent(again) == spent(whole)
    assert again.best.candidate == whole.best.candidate
    assert again.stopped == whole.stopped


async def test_texts_that_no_tokens_are_left_for_are_recorded() -> None:
    outcome = await search_task(small(6000, rounds=5, masking="rules"))
    reasons = {refusal.reason for record in outcome.records for refusal in record.refusals}
    assert outcome.stopped == "token budget"
    assert "token budget" in reasons


async def test_a_budget_below_the_start_is_an_error_that_says_so() -> None:
    with pytest.raises(DataError, match=r"a budget of 100 tokens does not suffice .* up to [\d,]+; raise"):
        await search_task(small(100))


async def test_a_budget_is_to_suffice_for_every_start() -> None:
    setup = small(None, STARTS)
    costs = Costs(setup.split, measure)
    cost = sum([await costs.first([text]) for text in setup.task.instructions])
    assert 0.9 * cost < spent(await search_task(small(cost, STARTS, rounds=0))) <= cost
    with pytest.raises(
        DataError,
        match=rf"of {cost - 1:,} tokens does not suffice to score the 3 start instructions, which take up to "
        rf"{cost:,}; give fewer of them, raise search\.max_tokens",
    ):
        await search_task(small(cost - 1, STARTS, rounds=0))


@dataclass
class Metered:
    """A clock that advances by the tokens of the engines around which it stands, a thousand a second."""

    tokens: int = 0

    def __call__(self) -> float:
        return self.tokens / 1000


class MeteredScorer(LocalScorer):
    def __init__(self, clock: Metered) -> None:
        super().__init__()
        self.clock = clock

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        scores = await super().score(request, rounds_left=rounds_left)
        self.clock.tokens += sum(score.tokens for score in scores)
        return scores


async def test_the_last_rounds_shrink_to_the_seconds_that_are_left() -> None:
    clock = Metered()
    setup = replace(small(None, rounds=50, max_seconds=30.0), scorer=MeteredScorer(clock), clock=clock)
    outcome = await search_task(setup)
    seconds = sum(record.seconds for record in outcome.records)
    assert outcome.stopped == "time budget"
    # The clock does not see what the rewriter reads and writes: an eighth of the tokens, at an even pace.
    assert 27 < seconds < 31.5


def test_the_searches_of_a_run_share_its_tokens_and_not_its_seconds() -> None:
    shared = {"tasks": ["tickets", "sst2"], "grid": {"a": {}, "b": {"max_tokens": 10}, "c": {"rounds": 1}}}
    budget = {"max_tokens": 6000, "max_seconds": 60}
    config = RunConfig.model_validate({**shared, "budget": budget, "search": {"max_seconds": 90.0}})
    limits = {name: (search.max_tokens, search.max_seconds) for name, search in config.searches().items()}
    assert limits == {"a": (1000, 60.0), "b": (10, 60.0), "c": (1000, 60.0)}
    assert RunConfig().searches()[""] == SearchConfig()


def test_a_round_shrinks_by_variants_before_hard_examples() -> None:
    requests = [GenerateRequest("Say it better.", n=4, max_tokens=100) for _ in range(3)]
    read = highest_cost(requests[0]) - 400

    def sizes(left: float) -> list[int]:
        return [request.n for request in shrunk(requests, left, written=50, scoring=200)]

    assert sizes(float("inf")) == sizes(100_000) == [4, 4, 4]
    assert sizes(3 * read + 3 * 3 * 250) == [3, 3, 3]
    assert sizes(3 * read + 3 * 250) == [1, 1, 1]
    assert sizes(2 * read + 2 * 250) == [1, 1]
    assert sizes(read + 300) == [1]
    assert sizes(read + 299) == []


def test_the_default_has_no_budget() -> None:
    assert SearchConfig().max_tokens is None
