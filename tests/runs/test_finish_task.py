"""One task of a run over clients in this process: the final pick, the accuracies, the stored result."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.in_process import InProcessGenerator, InProcessScorer
from pmpo_ray.config.loading import dump_config
from pmpo_ray.engines.simulated.engine import SimulatedScorer
from pmpo_ray.errors import EngineError
from pmpo_ray.evaluation.evaluators import GenerationEvaluator, LikelihoodEvaluator
from pmpo_ray.evaluation.grading import RuleGrader
from pmpo_ray.evaluation.judge import JudgeEvaluator
from pmpo_ray.outcomes import Method, Progress
from pmpo_ray.prepared_task import PreparedTask, prepare_tasks
from pmpo_ray.runs.finish_task import finish_task
from pmpo_ray.runs.fitting import Fitted
from pmpo_ray.runs.optimize_task import optimize_task
from pmpo_ray.runs.run_context import RunContext
from pmpo_ray.runs.task_evaluator import task_evaluator
from pmpo_ray.search.calibration import calibrated
from pmpo_ray.search.loop import SearchOutcome
from pmpo_ray.store import RunStore
from pmpo_ray.types import Example, ExampleScore, RoundRecord, ScoreRequest
from tests.run_folders import simulated_config


@dataclass
class RecordingScorer(InProcessScorer):
    """A scorer in this process that records its requests."""

    requests: list[ScoreRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        self.requests.append(request)
        return await super().score(request, rounds_left=rounds_left)


class FailingScorer(InProcessScorer):
    """Fails for the instruction of the second request; every other request waits until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.instructions: list[str] = []
        self.cancelled = 0

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        if request.instruction not in self.instructions:
            self.instructions.append(request.instruction)
        if self.instructions.index(request.instruction) == 1:
            raise EngineError("the example is too long")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return ()


def context(folder: Path, seen: list[Progress], **settings: object) -> tuple[RunContext, PreparedTask]:
    config = simulated_config(**settings)
    location = str(folder)
    store = (
        RunStore.open(location)
        if RunStore.exists(location)
        else RunStore.create(location, dump_config(config))
    )
    info = SimulatedScorer("simulated").info()
    run = RunContext(config, store, RecordingScorer(), InProcessGenerator(), info, seen.append)
    [prepared] = prepare_tasks(config)
    return run, prepared


def scored(run: RunContext, part: tuple[Example, ...]) -> set[str]:
    """The instructions that the run scored on a part of the task."""
    assert isinstance(run.scorer, RecordingScorer)
    inputs = {example.id for example in part}
    return {
        request.instruction
        for request in run.scorer.requests
        if inputs & {example.id for example in request.examples}
    }


async def test_a_task_is_searched_evaluated_and_stored(tmp_path: Path) -> None:
    seen: list[Progress] = []
    rounds: list[RoundRecord] = []
    run, prepared = context(tmp_path / "run", seen, evaluation={"limit": 40})
    result = await optimize_task(run, prepared, rounds.append)
    assert [record.round for record in rounds] == [0, 1, 2, 3]
    assert run.store.read_task_result("tickets") == result
    assert result.accuracy_after is not None
    assert result.accuracy_after.n == 40
    assert [progress.state for progress in seen[-2:]] == ["evaluating", "done"]
    assert scored(run, prepared.split.test) == {result.start, result.best}


async def test_uneven_labels_are_measured_by_label(tmp_path: Path) -> None:
    data = tmp_path / "spam.csv"
    rows = "".join(f"message {n},{'spam' if n % 10 == 0 else 'ham'}\n" for n in range(60))
    data.write_text("input,target\n" + rows)
    run, prepared = context(tmp_path / "run", [], tasks=[{"name": "spam", "path": str(data)}])
    result = await optimize_task(run, prepared, lambda _: None)
    assert result.labels_before is not None
    assert result.labels_after is not None
    assert result.accuracy_after is not None
    [ham, spam] = result.labels_after.labels
    assert (ham.label, spam.label) == ("ham", "spam")
    assert ham.accuracy.n + spam.accuracy.n == len(prepared.split.test) == result.accuracy_after.n
    right = ham.accuracy.value * ham.accuracy.n + spam.accuracy.value * spam.accuracy.n
    assert right == pytest.approx(result.accuracy_after.value * result.accuracy_after.n)
    assert run.store.read_task_result("spam") == result


async def test_a_stored_result_is_not_evaluated_again(tmp_path: Path) -> None:
    first, prepared = context(tmp_path / "run", [])
    result = await optimize_task(first, prepared, lambda _: None)
    seen: list[Progress] = []
    again, _ = context(tmp_path / "run", seen)
    assert await optimize_task(again, prepared, lambda _: None) == result
    assert scored(again, (*prepared.split.train, *prepared.split.test)) == set()
    assert "evaluating" not in {progress.state for progress in seen}


@pytest.mark.parametrize("calibrate", [True, "inputs"])
async def test_the_biases_in_the_result_choose_the_answers_that_were_measured(
    tmp_path: Path, calibrate: bool | str
) -> None:
    settings = {"search": {"calibrate": calibrate}, "evaluation": {"limit": 40}}
    run, prepared = context(tmp_path / "run", [], **settings)
    result = await optimize_task(run, prepared, lambda _: None)
    biases = {one.answer: one.nats for one in result.biases}
    assert sorted(biases) == sorted(prepared.task.labels)
    examples = prepared.split.test[:40]
    right = 0
    for example, score in zip(
        examples, await run.scorer.score(ScoreRequest(result.best, examples)), strict=True
    ):
        answers = (example.target, *example.negatives)
        less = [
            answer.logprob - biases[text]
            for text, answer in zip(answers, (score.target, *score.negatives), strict=True)
        ]
        right += less.index(max(less)) == 0
    assert result.accuracy_after is not None
    assert right / 40 == result.accuracy_after.value
    assert run.store.read_task_result("tickets") == result


@pytest.mark.parametrize(
    "evaluation", [{"calibrate": False, "limit": 10}, {"method": "generation", "limit": 10}], ids=str
)
async def test_choices_that_are_not_calibrated_have_no_biases(
    tmp_path: Path, evaluation: dict[str, object]
) -> None:
    run, prepared = context(tmp_path / "run", [], search={"calibrate": True}, evaluation=evaluation)
    assert (await optimize_task(run, prepared, lambda _: None)).biases == ()


@pytest.mark.parametrize("calibrate", [False, True, "inputs"])
async def test_one_of_the_last_leaders_is_picked_on_training_and_validation_part(
    calibrate: bool | str, tmp_path: Path
) -> None:
    run, prepared = context(
        tmp_path / "run",
        [],
        split={"validation": 20},
        search={"rounds": 4, "calibrate": calibrate},
        evaluation={"enabled": False},
    )
    result = await optimize_task(run, prepared, lambda _: None)
    bests = [record.scored_survivors[0].candidate.text for record in run.store.read_rounds("tickets")]
    leaders = list(dict.fromkeys(bests))[-3:]
    assert len(leaders) == 3
    assert scored(run, prepared.split.validation) == set(leaders)
    assert not scored(run, prepared.split.test)

    # All rows of both parts count alike; the bias of a part is that over its own inputs.
    async def losses_on(text: str, part: tuple[Example, ...]) -> list[float]:
        client = calibrated(InProcessScorer(), prepared.task, prepared.search.calibrates, part)
        return list(map(prepared.objective, await client.score(ScoreRequest(text, part))))

    losses = {
        text: fmean(
            [
                *await losses_on(text, prepared.split.train),
                *await losses_on(text, prepared.split.validation),
            ]
        )
        for text in leaders
    }
    assert result.best == min(losses, key=losses.__getitem__)


async def test_a_failed_pick_cancels_the_other_requests(tmp_path: Path) -> None:
    run, prepared = context(
        tmp_path / "run", [], split={"validation": 20}, search={"rounds": 4}, evaluation={"enabled": False}
    )
    await optimize_task(run, prepared, lambda _: None)
    outcome = SearchOutcome(run.store.read_rounds("tickets"), "rounds")
    failing = FailingScorer()
    finishing = finish_task(replace(run, scorer=failing), Fitted(prepared, ()), outcome)
    with pytest.raises(EngineError, match="too long"):
        await asyncio.wait_for(finishing, 60)
    assert failing.cancelled == len(failing.instructions) - 1 > 0


@pytest.mark.parametrize(
    ("method", "needed", "kind"),
    [
        ("likelihood", "scorer", LikelihoodEvaluator),
        ("generation", "generator", GenerationEvaluator),
        ("judged", "generator", JudgeEvaluator),
    ],
)
def test_the_method_of_a_task_decides_its_evaluator(method: Method, needed: str, kind: type) -> None:
    config = simulated_config()
    [prepared] = prepare_tasks(config)

    def evaluator(*clients: str) -> object:
        return task_evaluator(
            prepared,
            method,
            config,
            scorer=InProcessScorer() if "scorer" in clients else None,
            generator=InProcessGenerator() if "generator" in clients else None,
            grader=RuleGrader(prepared.task),
            reference=prepared.task.instruction,
        )

    assert isinstance(evaluator("scorer", "generator"), kind)
    assert isinstance(evaluator(needed), kind)
    assert evaluator(*{"scorer", "generator"} - {needed}) is None
