"""Contextual calibration: scores of labels less their scores after inputs without content."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.in_process import InProcessScorer
from pmpo_ray import evaluate, optimize
from pmpo_ray.config.base import Calibrate
from pmpo_ray.outcomes import Progress
from pmpo_ray.search.calibration import CONTENT_FREE, biases, calibrated, closed_answers
from pmpo_ray.search.objectives import make_objective
from pmpo_ray.store import RunStore
from pmpo_ray.types import Example, ScoreRequest, Task
from tests.evaluation.test_evaluators import Scores
from tests.run_folders import simulated_config

LABELS = ("billing", "shipping", "praise")
TASK = Task("desk", "labels", "Sort the message.", "Which desk?", (), labels=LABELS)
EXAMPLES = tuple(
    Example(str(n), text, label, tuple(other for other in LABELS if other != label))
    for n, (text, label) in enumerate([("late parcel", "shipping"), ("thank you", "praise")])
)


def biased(bias: Mapping[str, float] = MappingProxyType({})) -> Scores:
    """A scorer that prefers answers that share letters with the input, and has a bias towards labels."""

    def table(text: str, answer: str) -> float:
        evidence = 0.0 if text in CONTENT_FREE else len(set(text) & set(answer)) / 10
        return evidence - 3 + bias.get(answer, 0.0)

    return Scores(table)


def quiet(progress: Progress) -> None:
    """An observer that keeps nothing."""


@given(st.dictionaries(st.sampled_from(LABELS), st.floats(-5, 5)))
def test_a_bias_towards_labels_changes_no_loss(bias: dict[str, float]) -> None:
    objective = make_objective("preference", beta=1.0, per_token=False)
    fair = asyncio.run(calibrated(biased(), TASK).score(ScoreRequest("Which desk?", EXAMPLES)))
    found = asyncio.run(calibrated(biased(bias), TASK).score(ScoreRequest("Which desk?", EXAMPLES)))
    assert [objective(score) for score in found] == pytest.approx([objective(score) for score in fair])


async def test_the_inputs_without_content_are_scored_in_the_same_call_and_counted() -> None:
    inner = biased()
    scorer = calibrated(inner, TASK)
    plain = await inner.score(ScoreRequest("Which desk?", EXAMPLES))
    found = await scorer.score(ScoreRequest("Which desk?", EXAMPLES))
    again = await scorer.score(ScoreRequest("Whose is it?", EXAMPLES))
    assert [[e.input for e in examples] for examples in inner.asked[1:]] == [
        [*(e.input for e in EXAMPLES), *CONTENT_FREE]
    ] * 2
    assert inner.asked[1] is inner.asked[2]
    each = plain[0].tokens
    assert [score.tokens for score in found] == [each + len(CONTENT_FREE) * each, each]
    assert found == again
    assert await scorer.score(ScoreRequest("Which desk?", ())) == ()


async def test_answers_that_are_no_labels_keep_their_scores_and_other_tasks_their_scorer() -> None:
    odd = Example("odd", "late parcel", "shipping", ("none of these",))
    inner = biased({"shipping": 2.0})
    [score] = await calibrated(inner, TASK).score(ScoreRequest("Which desk?", (odd,)))
    [plain] = await inner.score(ScoreRequest("Which desk?", (odd,)))
    assert score.negatives == plain.negatives
    assert score.target.logprob == pytest.approx(plain.target.logprob + 1)
    assert calibrated(inner, Task("free", "text", "", "", ())) is inner


@given(st.dictionaries(st.sampled_from(LABELS), st.floats(-5, 5)))
def test_the_training_inputs_take_a_bias_away_at_no_cost(bias: dict[str, float]) -> None:
    objective = make_objective("preference", beta=1.0, per_token=False)
    inner, request = biased(bias), ScoreRequest("Which desk?", EXAMPLES)
    fair = asyncio.run(calibrated(biased(), TASK, "inputs", EXAMPLES).score(request))
    found = asyncio.run(calibrated(inner, TASK, "inputs", EXAMPLES).score(request))
    assert [objective(score) for score in found] == pytest.approx([objective(score) for score in fair])
    assert inner.asked == [EXAMPLES]
    # Over the training inputs every label is as likely as any other.
    for label in LABELS:
        over_inputs = 0.0
        for example, score in zip(EXAMPLES, found, strict=True):
            answers = (example.target, *example.negatives)
            over_inputs += dict(zip(answers, (score.target, *score.negatives), strict=True))[label].logprob
        assert over_inputs == pytest.approx(0)


async def test_other_examples_are_calibrated_by_the_training_inputs_which_are_counted() -> None:
    inner = biased({"praise": 3.0})
    scorer = calibrated(inner, TASK, "inputs", EXAMPLES)
    other = Example("other", "parcel", "shipping", ("billing", "praise"))
    [found] = await scorer.score(ScoreRequest("Which desk?", (other,)))
    plain = await inner.score(ScoreRequest("Which desk?", (other, *EXAMPLES)))
    assert found.tokens == sum(score.tokens for score in plain)
    bias = [plain[1].negatives[1].logprob, plain[2].target.logprob]
    assert found.negatives[1].logprob == pytest.approx(plain[0].negatives[1].logprob - sum(bias) / 2)


@pytest.mark.parametrize("calibrate", [True, "inputs"])
async def test_the_biases_are_what_calibration_subtracts(calibrate: Calibrate) -> None:
    inner, request = biased({"praise": 3.0, "billing": -1.0}), ScoreRequest("Which desk?", EXAMPLES)
    found = await biases(inner, TASK, calibrate, EXAMPLES, request)
    assert set(found) == set(LABELS)
    plain = await inner.score(request)
    fair = await calibrated(inner, TASK, calibrate, EXAMPLES).score(request)
    for example, one, other in zip(EXAMPLES, plain, fair, strict=True):
        answers = (example.target, *example.negatives)
        for answer, raw, less in zip(
            answers, (one.target, *one.negatives), (other.target, *other.negatives), strict=True
        ):
            assert raw.logprob - found[answer] == pytest.approx(less.logprob)
    assert await biases(inner, TASK, False, EXAMPLES, request) == {}
    assert await biases(inner, Task("free", "text", "", "", ()), calibrate, EXAMPLES, request) == {}


def test_options_are_a_closed_set_if_the_same_ones_stand_for_choice_in_nearly_every_input() -> None:
    def options(*answers: tuple[str, ...]) -> Task:
        examples = (Example(str(n), f"i{n}", own[0], own[1:]) for n, own in enumerate(answers))
        return Task("t", "options", "", "", tuple(examples))

    letters = [("(A)", "(B)", "(C)"), ("(B)", "(A)", "(C)"), ("(B)", "(A)")] * 4
    assert closed_answers(options(*letters)) == ("(A)", "(B)", "(C)")
    assert closed_answers(options(*letters, ("Up", "Down"))) == ("(A)", "(B)", "(C)")
    assert closed_answers(options(*((f"film {n}", f"film {n + 50}") for n in range(20)))) == ()
    assert closed_answers(TASK) == LABELS
    assert closed_answers(Task("t", "text", "", "", EXAMPLES)) == ()


async def test_the_simulated_engine_is_calibrated_alike_in_every_part() -> None:
    """Examples are scored on their own: calibrating all of them or some gives the same."""
    scorer = calibrated(InProcessScorer(), TASK)
    whole = await scorer.score(ScoreRequest("Which desk?", EXAMPLES))
    [second] = await scorer.score(ScoreRequest("Which desk?", EXAMPLES[1:]))
    assert (second.target, second.negatives) == (whole[1].target, whole[1].negatives)


@pytest.mark.usefixtures("running_ray")
def test_a_calibrated_search_is_evaluated_with_calibration_by_default(tmp_path: Path) -> None:
    losses = {}
    for calibrate in (False, True):
        folder = str(tmp_path / str(calibrate))
        config = simulated_config(
            search={"rounds": 1, "calibrate": calibrate}, evaluation={"limit": 30}, split={"validation": 5}
        )
        result = optimize(config, run_dir=folder, observer=quiet)
        losses[calibrate] = result.tasks[0].loss_before
    assert losses[False] != losses[True]

    def measured(*overrides: str) -> list[float | None]:
        evaluate(folder, overrides=overrides, observer=quiet)
        [start, *_] = RunStore.open(folder).read_evaluation() or ()
        return [outcome.loss for outcome in start.outcomes]

    as_searched = measured()
    assert as_searched == measured("evaluation.calibrate=true")
    assert as_searched != measured("evaluation.calibrate=false")
