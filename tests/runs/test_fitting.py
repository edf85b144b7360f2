"""Rows that do not fit into the model's context: named before the search, left out, never the end of it."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.in_process import InProcessGenerator, InProcessScorer
from pmpo_ray.config.loading import dump_config
from pmpo_ray.display.final_table import FinalTable
from pmpo_ray.engines.simulated.engine import SimulatedScorer
from pmpo_ray.errors import DataError, EngineError, PromptTooLongError
from pmpo_ray.outcomes import Condition, ConditionResult, Outcome
from pmpo_ray.prepared_task import PreparedTask, prepare_tasks
from pmpo_ray.runs.fitting import Fitted, Ruler, fit_task, on_shared_examples
from pmpo_ray.runs.optimize_task import optimize_task
from pmpo_ray.runs.run_context import RunContext
from pmpo_ray.store import RunStore
from pmpo_ray.types import Example, ExampleScore, PromptLength, ScoreRequest
from tests.run_folders import simulated_config

CONTEXT = 200
SHORT = "the parcel came late and the box was torn"


class Measured(InProcessScorer):
    """A scorer in this process with a context of `CONTEXT` tokens that tells lengths."""

    def __init__(self) -> None:
        super().__init__()
        self._engine = SimulatedScorer(f"simulated:context={CONTEXT}")

    async def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...] | None:
        return self._engine.lengths(request)


def prepared_with(tmp_path: Path, long_rows: int, *, words: int = 300, **settings: object) -> PreparedTask:
    """A task of 60 rows of two labels, `long_rows` of which are longer than the context."""
    rows = [f"{SHORT} {number},{'good' if number % 2 else 'bad'}" for number in range(60 - long_rows)]
    rows += [f"{'word ' * words}{number},{'good' if number % 2 else 'bad'}" for number in range(long_rows)]
    (tmp_path / "rows.csv").write_text("\n".join(["input,target", *rows]))
    task = {"name": "own", "path": str(tmp_path / "rows.csv"), "instruction": "Sort the complaint."}
    [prepared] = prepare_tasks(simulated_config(tasks=[task], **settings))
    return prepared


def context(tmp_path: Path, scorer: InProcessScorer, **settings: object) -> RunContext:
    config = simulated_config(**settings)
    folder = str(tmp_path / "run")
    if not RunStore.exists(folder):
        RunStore.create(folder, dump_config(config))
    ruler = Ruler(scorer.lengths, CONTEXT) if isinstance(scorer, Measured) else None
    info = SimulatedScorer("simulated").info()
    return RunContext(
        config, RunStore.open(folder), scorer, InProcessGenerator(), info, lambda _: None, ruler
    )


def long_ones(examples: tuple[Example, ...]) -> int:
    return sum("word word" in example.input for example in examples)


async def test_rows_that_are_too_long_are_left_out_of_every_part_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split = {"train_fraction": 0.5, "validation": 10}
    prepared = prepared_with(tmp_path, 30, split=split)
    parts = prepared.split
    counts = [long_ones(part) for part in (parts.train, parts.validation, parts.test)]
    assert min(counts) > 0
    run = context(tmp_path, Measured(), split=split)
    with caplog.at_level(logging.WARNING):
        result = await optimize_task(run, prepared, lambda _: None)
    assert result.accuracy_after is not None
    assert result.accuracy_after.n == len(parts.test) - counts[2]
    assert (result.held_out, result.too_long) == (len(parts.test), counts[2])
    training = run.store.read_training("own")
    assert training is not None
    assert (len(training), long_ones(training)) == (len(parts.train) - counts[0], 0)
    assert run.store.read_task_result("own") == result
    [record] = [one for one in caplog.records if "too long" in one.getMessage()]
    assert (
        f"task own: {counts[0]} of 30 training rows, {counts[1]} of 10 validation rows, "
        in record.getMessage()
    )
    assert f"{counts[2]} of {len(parts.test)} held-out rows left out" in record.getMessage()
    assert "context of 200 tokens" in record.getMessage()
    assert record.getMessage().count("word word") > 0
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(FinalTable((result,), "run"))
    extent = f"{result.accuracy_after.n} of {result.held_out} held-out examples, {counts[2]} too long for"
    assert extent in console.export_text()


async def test_a_search_that_left_rows_out_continues_with_the_same_part(tmp_path: Path) -> None:
    prepared = prepared_with(tmp_path, 30, split={"train_fraction": 0.5})
    settings = {"split": {"train_fraction": 0.5}}
    await optimize_task(
        context(tmp_path, Measured(), **settings, search={"rounds": 1}), prepared, lambda _: None
    )
    longer = replace(prepared, search=prepared.search.model_copy(update={"rounds": 3}))
    result = await optimize_task(context(tmp_path, Measured(), **settings), longer, lambda _: None)
    assert result.rounds == 3


async def test_too_few_rows_that_fit_are_an_error_of_one_line(tmp_path: Path) -> None:
    prepared = prepared_with(tmp_path, 60)
    with pytest.raises(
        DataError, match=r"'own': 0 of 12 training rows fit .* context of 200 tokens"
    ) as caught:
        await optimize_task(context(tmp_path, Measured()), prepared, lambda _: None)
    assert len(str(caught.value).splitlines()) == 1


async def test_an_engine_that_tells_no_lengths_loses_only_the_rows_that_fail(tmp_path: Path) -> None:
    class Silent(InProcessScorer):
        async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
            if long_ones(request.examples):
                raise EngineError("an example is too long")
            return await super().score(request)

    for seed in range(20):
        prepared = prepared_with(tmp_path, 1, seed=seed, split={"validation": 10})
        if long_ones(prepared.split.test):
            break
    result = await optimize_task(context(tmp_path, Silent()), prepared, lambda _: None)
    assert result.accuracy_after is not None
    assert result.accuracy_after.n == len(prepared.split.test) - 1
    assert (result.held_out, result.too_long) == (len(prepared.split.test), 1)


async def test_room_is_left_for_longer_instructions_and_a_longer_one_fails(tmp_path: Path) -> None:
    # With the start instruction, rows of 120 words take 160 of 200 tokens: 50 are kept for instructions.
    prepared = prepared_with(tmp_path, 30, words=120, split={"train_fraction": 0.5})
    assert long_ones((await fitted_with(prepared)).held_out) == 0
    tight = replace(prepared, search=prepared.search.model_copy(update={"max_instruction_chars": 40}))
    fitted = await fitted_with(tight)
    assert long_ones(fitted.held_out) == long_ones(prepared.split.test)
    guarded = fitted.guarded(Measured())
    train = fitted.prepared.split.train
    short_rows = tuple(example for example in train if not long_ones((example,)))
    assert len(await guarded.score(ScoreRequest("Sort the complaint by mood.", short_rows))) == len(
        short_rows
    )
    with pytest.raises(PromptTooLongError, match="tokens longer than the start instruction"):
        await guarded.score(ScoreRequest("Sort the complaint. " * 15, short_rows))


@pytest.mark.parametrize("rounds", [0, 3])
async def test_every_row_that_is_kept_fits_with_every_start(tmp_path: Path, rounds: int) -> None:
    # Rows of 100 words take 135 of 200 tokens with the first start, and 225 with the last one.
    prepared = prepared_with(tmp_path, 30, words=100, split={"train_fraction": 0.5})
    search = prepared.search.model_copy(update={"rounds": rounds, "max_instruction_chars": 100})
    starts = ("Sort the complaint by its mood.", "Sort the complaint. " * 24)
    prepared = replace(prepared, search=search)
    assert long_ones((await fitted_with(prepared)).held_out) == long_ones(prepared.split.test)
    several = replace(prepared, task=replace(prepared.task, starts=starts))
    fitted = await fitted_with(several)
    rows = (*fitted.prepared.split.train, *fitted.held_out)
    assert rows
    assert long_ones(rows) == 0
    guarded = fitted.guarded(Measured())
    for text in several.task.instructions:
        assert len(await guarded.score(ScoreRequest(text, rows))) == len(rows)


async def test_a_start_that_leaves_no_row_is_named(tmp_path: Path) -> None:
    prepared = prepared_with(tmp_path, 0)
    several = replace(prepared, task=replace(prepared.task, starts=("Sort the complaint. " * 60,)))
    with pytest.raises(DataError, match="shorten them or the longest start instruction, lower"):
        await fitted_with(several)


async def fitted_with(prepared: PreparedTask) -> Fitted:
    config = simulated_config()
    return await fit_task(prepared, config.evaluation, "likelihood", Ruler(Measured().lengths, CONTEXT), None)


async def test_a_generated_reply_needs_room_too(tmp_path: Path) -> None:
    prepared = prepared_with(tmp_path, 30, words=120, search={"rounds": 0}, split={"train_fraction": 0.5})
    config = simulated_config()
    ruler = Ruler(Measured().lengths, CONTEXT)
    chosen = await fit_task(prepared, config.evaluation, "likelihood", ruler, None)
    written = await fit_task(prepared, config.evaluation, "generation", ruler, None)
    assert long_ones(chosen.held_out) == long_ones(prepared.split.test)
    assert long_ones(written.held_out) == 0


def test_conditions_are_compared_on_the_examples_that_all_of_them_have() -> None:
    def results(name: str, *examples: str) -> ConditionResult:
        condition = Condition("own", "m", name, "Sort.", 0, 0, "likelihood")
        outcomes = tuple(Outcome(example, True, "good") for example in examples)
        return ConditionResult(condition, outcomes, tuple(f"label of {example}" for example in examples))

    shared = on_shared_examples([results("start", "a", "b", "c"), results("best", "b", "c"), results("none")])
    assert [[outcome.example for outcome in one.outcomes] for one in shared] == [["b", "c"], ["b", "c"], []]
    assert shared[0].labels == shared[1].labels == ("label of b", "label of c")
