"""The plan of a search: a run never takes more tokens of any kind, whatever its configuration."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.in_process import InProcessGenerator, InProcessScorer
from pmpo_ray.config.loading import dump_config
from pmpo_ray.engines.simulated.engine import SimulatedScorer
from pmpo_ray.errors import DataError
from pmpo_ray.outcomes import TaskResult
from pmpo_ray.prepared_task import prepare_tasks
from pmpo_ray.run_plan import SearchPlan
from pmpo_ray.runs.fitting import Ruler
from pmpo_ray.runs.optimize_task import optimize_task
from pmpo_ray.runs.plan_search import fit_search
from pmpo_ray.runs.run_context import RunContext
from pmpo_ray.search.operators import Proposal, ProposalContext
from pmpo_ray.store import RunStore
from pmpo_ray.types import WRITING_OPERATORS, ExampleScore, PromptLength, ScoreRequest
from tests.run_folders import simulated_config

ENGINE = SimulatedScorer("simulated")


class CountingScorer(InProcessScorer):
    """A scorer in this process that counts the tokens of what it scored, by the ids of the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: dict[str, int] = {}

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        scores = await super().score(request, rounds_left=rounds_left)
        for example, score in zip(request.examples, scores, strict=True):
            self.tokens[example.id] = self.tokens.get(example.id, 0) + score.tokens
        return scores


class Inventing:
    """An operator of one's own that writes long texts."""

    async def propose(self, context: ProposalContext) -> list[Proposal]:
        return [
            Proposal(
                f"Decide which kind of ticket it is, by rule {context.round}-{number}. " + "Read it. " * 99
            )
            for number in range(context.count)
        ]


async def measure(request: ScoreRequest) -> tuple[PromptLength, ...] | None:
    return ENGINE.lengths(request)


async def planned_and_run(
    folder: Path, *, tells: bool = True, **changes: object
) -> tuple[SearchPlan, TaskResult, CountingScorer]:
    """The plan of a search, its result, and the scorer that it used."""
    config = simulated_config(**changes)
    [prepared] = prepare_tasks(config)
    ruler, info, scorer = Ruler(measure, 100_000) if tells else None, ENGINE.info(), CountingScorer()
    plan = (await fit_search(prepared, config, info, ruler)).plan(100)
    store = RunStore.create(str(folder), dump_config(config))
    run = RunContext(config, store, scorer, InProcessGenerator(), info, lambda _: None, ruler)
    return plan, await optimize_task(run, prepared, lambda _: None), scorer


def assert_within(plan: SearchPlan, result: TaskResult) -> None:
    most, limit = plan.at_most.search + plan.at_most.pick, plan.max_tokens
    bound = most.within(limit)
    assert result.tokens_scored <= bound.scored
    assert result.tokens_prompted <= bound.prompted
    assert result.tokens_generated <= bound.generated
    spent = result.tokens_scored + result.tokens_prompted + result.tokens_generated
    assert spent <= most.total if limit is None else spent <= 1.01 * limit


searches = st.fixed_dictionaries(
    {
        "rounds": st.integers(0, 5),
        "hard_examples": st.integers(1, 4),
        "variants": st.integers(1, 4),
        "population": st.integers(1, 3),
        "masking": st.sampled_from(["model", "rules", "off"]),
        "mask_mode": st.sampled_from(["drop", "token"]),
        "mask_token": st.sampled_from(["[MASK]", "here stood a part of the text"]),
        "reasks": st.integers(0, 2),
        "racing": st.sampled_from([None, 0.2]),
        "bandit": st.booleans(),
        "sense": st.booleans(),
        "readability": st.sampled_from([None, None, 0.1, 2.0]),
        "demonstrations": st.integers(0, 4),
        "calibrate": st.sampled_from([False, True, "inputs"]),
        "meta_prompt": st.sampled_from(["long", "short"]),
        "operators": st.sampled_from(
            [
                [],
                ["rewrite"],
                ["compose"],
                ["rewrite", "compose"],
                ["repair"],
                ["contrast", "shorten"],
                [*WRITING_OPERATORS],
                ["compose", *WRITING_OPERATORS],
                [f"{__name__}:Inventing", *WRITING_OPERATORS],
                [f"{__name__}:Inventing", "rewrite"],
            ]
        ),
        "max_tokens": st.sampled_from([None, None, 30_000, 200_000]),
    }
)
splits = st.fixed_dictionaries(
    {
        "train_max": st.integers(3, 30),
        "validation": st.sampled_from([0, 5]),
        "shots": st.sampled_from([0, 2]),
    }
)


STARTS = (
    "Name it.",
    "Read the message. Which of the options fits it? Compare each step by step. "
    + "Check it carefully. " * 9,
    "Decide what the customer wants. Answer with exactly one of the labels.",
)
own_starts = st.lists(st.sampled_from(STARTS), min_size=1, max_size=3, unique=True)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(search=searches, split=splits, starts=st.none() | own_starts, tells=st.booleans())
def test_a_search_never_takes_more_than_planned(
    search: dict[str, object], split: dict[str, object], starts: list[str] | None, tells: bool
) -> None:
    tasks = [{"name": "tickets", "instruction": starts}]
    settings = {"tasks": tasks, "search": search, "split": split, "evaluation": {"enabled": False}}
    with tempfile.TemporaryDirectory() as folder:
        plan, result, _ = asyncio.run(planned_and_run(Path(folder, "run"), tells=tells, **settings))
    assert_within(plan, result)


async def test_the_first_text_is_told_exactly(tmp_path: Path) -> None:
    plan, result, _ = await planned_and_run(tmp_path / "run", search={"rounds": 0})
    assert plan.text == result.tokens_scored == plan.at_most.search.scored == plan.typical.search.scored
    assert plan.candidates == {}


async def test_every_start_is_planned_exactly(tmp_path: Path) -> None:
    tasks = [{"name": "tickets", "instruction": list(STARTS)}]
    evaluation = {"limit": 40}
    plan, result, scorer = await planned_and_run(
        tmp_path / "run", tasks=tasks, search={"rounds": 0, "calibrate": False}, evaluation=evaluation
    )
    assert plan.text < result.tokens_scored == plan.at_most.search.scored == plan.typical.search.scored
    assert (result.start, result.best) == (STARTS[0], STARTS[1])
    spent = sum(scorer.tokens.values()) - result.tokens_scored
    assert 0 < spent <= plan.at_most.evaluation.scored


@pytest.mark.parametrize("calibrate", [False, True, "inputs"])
async def test_the_evaluation_never_takes_more_than_planned(tmp_path: Path, calibrate: object) -> None:
    search = {"rounds": 2, "operators": ["compose"], "demonstrations": 3, "calibrate": calibrate}
    plan, result, scorer = await planned_and_run(
        tmp_path / "run", search=search, evaluation={"limit": 40}, split={"train_max": 20}
    )
    assert plan.held_out == 40
    assert (result.best, result.shots) != (result.start, ())
    [prepared] = prepare_tasks(simulated_config(split={"train_max": 20}))
    held_out = {example.id for example in prepared.split.test[:40]}
    spent = sum(tokens for name, tokens in scorer.tokens.items() if name in held_out)
    assert 0 < spent <= plan.at_most.evaluation.scored


async def test_more_of_everything_is_planned_with_more_rounds_and_parents(tmp_path: Path) -> None:
    numbers = itertools.count()

    async def total(**search: object) -> int:
        config = simulated_config(search={"operators": ["rewrite", "compose"], **search})
        [prepared] = prepare_tasks(config)
        fitted = await fit_search(prepared, config, ENGINE.info(), Ruler(measure, 100_000))
        plan = fitted.plan(next(numbers) + 50)
        assert plan.typical.search.total <= plan.at_most.search.total
        return plan.at_most.search.total

    assert await total(rounds=1) < await total(rounds=2) < await total(rounds=2, population=3)
    # A million rounds are planned as fast as one.
    assert await total(rounds=1_000_000) > await total(rounds=1000)


async def test_a_search_that_could_not_begin_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a budget of 100 tokens does not suffice"):
        await planned_and_run(tmp_path / "run", search={"max_tokens": 100})


async def test_notes_say_what_a_plan_cannot_know(tmp_path: Path) -> None:
    search = {"rounds": 1, "operators": [f"{__name__}:Inventing"], "racing": 0.1, "max_seconds": 60.0}
    plan, _, _ = await planned_and_run(tmp_path / "run", tells=False, search=search)
    assert [note.partition(" ")[0] for note in plan.notes] == ["the", "Inventing:", "with", "the"]
