"""The levels of the budget: a limit in proportion to the task, the same whenever a run continues."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.in_process import InProcessScorer
from pmpo_ray import RunResult, optimize
from pmpo_ray.config.budget import TEXTS, Level
from pmpo_ray.engines.simulated.engine import SimulatedScorer
from pmpo_ray.prepared_task import PreparedTask, prepare_tasks
from pmpo_ray.runs.budget_level import training_cost, with_level
from pmpo_ray.runs.fitting import Ruler
from pmpo_ray.search.calibration import Calibration
from pmpo_ray.types import PromptLength, ScoreRequest
from tests.run_folders import ENGINE, simulated_config

ENGINE_HERE = SimulatedScorer("simulated")


async def measure(request: ScoreRequest) -> tuple[PromptLength, ...] | None:
    return ENGINE_HERE.lengths(request)


def prepared_with(**settings: object) -> PreparedTask:
    [prepared] = prepare_tasks(simulated_config(**settings))
    return prepared


@pytest.mark.parametrize("calibrate", [False, True, "inputs"])
@pytest.mark.parametrize("shots", [0, 3])
async def test_the_cost_of_the_start_is_that_of_its_scores(calibrate: object, shots: int) -> None:
    prepared = prepared_with(search={"calibrate": calibrate}, split={"shots": shots})
    calibration = Calibration.of(prepared.task, prepared.search.calibrates)
    blanks = () if calibration is None else calibration.blanks
    split, start = prepared.split, prepared.task.instruction
    request = ScoreRequest(start, (*split.train, *blanks), split.shots)
    scores = await prepared.scoring(InProcessScorer(), calibrate=False).score(request)
    exact = sum(score.tokens for score in scores)
    assert await training_cost(prepared, prepared.task.instruction, measure) == exact
    assert await training_cost(prepared, prepared.task.instruction, None) > exact


async def test_a_level_goes_by_the_first_start() -> None:
    ruler = Ruler(measure, 10_000)
    prepared = prepared_with()
    several = replace(prepared, task=replace(prepared.task, starts=("Sort the message. " * 20,)))
    one, other = [await with_level(each, "light", ruler) for each in (prepared, several)]
    assert one.search.max_tokens == other.search.max_tokens


@pytest.mark.parametrize("level", TEXTS)
async def test_a_level_is_a_multiple_of_the_start(level: Level, caplog: pytest.LogCaptureFixture) -> None:
    prepared, ruler = prepared_with(split={"train_max": 40}), Ruler(measure, 10_000)
    text = await training_cost(prepared, prepared.task.instruction, measure)
    with caplog.at_level(logging.INFO):
        limited = await with_level(prepared, level, ruler)
    limit = limited.search.max_tokens
    assert limit == TEXTS[level] * text
    assert caplog.messages == [
        f"task tickets: budget {level} is {limit:,} tokens ({TEXTS[level]} texts of {text:,} tokens on 40 "
        "training rows)"
    ]
    assert replace(limited, search=prepared.search) == prepared


async def test_the_lower_of_two_limits_holds(caplog: pytest.LogCaptureFixture) -> None:
    lower = prepared_with(search={"max_tokens": 9000})
    with caplog.at_level(logging.INFO):
        assert await with_level(lower, "light", Ruler(measure, 10_000)) == lower
    assert caplog.messages[0].endswith("; the lower limit of 9,000 tokens holds")
    higher = prepared_with(search={"max_tokens": 10**9})
    assert (await with_level(higher, "light", None)).search.max_tokens != 10**9
    assert await with_level(lower, None, None) == lower


def run(folder: Path, rounds: int, level: Level, caplog: pytest.LogCaptureFixture) -> tuple[RunResult, int]:
    """The result of a run, and the limit that it noted."""
    caplog.clear()
    search = {"rounds": rounds, "operators": ["rewrite", "compose"]}
    config = simulated_config(search=search, scorer={**ENGINE, "role": "both"}, rewriter={}, budget=level)
    with caplog.at_level(logging.INFO):
        result = optimize(config.model_copy(update={"run_dir": str(folder)}), observer=lambda _: None)
    [limit] = [found[1] for line in caplog.messages if (found := re.search(r"budget \w+ is ([\d,]+)", line))]
    return result, int(limit.replace(",", ""))


@pytest.mark.slow
@pytest.mark.usefixtures("running_ray")
def test_a_run_stops_within_its_level_and_continues_with_the_same_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, limit = run(tmp_path / "whole", 60, "light", caplog)
    [task] = whole.tasks
    spent = task.tokens_scored + task.tokens_prompted + task.tokens_generated
    assert task.stopped == "token budget"
    assert 0.8 * limit < spent <= limit
    run(tmp_path / "run", 1, "light", caplog)
    continued, again = run(tmp_path / "run", 60, "light", caplog)
    assert again == limit
    assert [replace(one, seconds=0.0) for one in continued.tasks] == [replace(task, seconds=0.0)]
    more, higher = run(tmp_path / "run", 60, "medium", caplog)
    assert (higher * 3, more.tasks[0].rounds > task.rounds) == (limit * 10, True)
