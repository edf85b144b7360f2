"""Contextual calibration: scores of answers less those of the same answers after inputs without content.

A model may be biased towards one label or one letter whatever the input. An instruction that only shifts this
bias changes the loss without telling the answers apart any better. After the bias is subtracted from every
score (Zhao et al., 2021, arXiv 2102.09690), the loss measures what the input contributes.

Invariants: only answers of a closed set have a bias, and any other answer keeps its log-likelihood; equal
scores give equal calibrated scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from pmpo_ray.protocols import ScoreClient
from pmpo_ray.types import AnswerScore, Example, ExampleScore, ScoreRequest, Task

CONTENT_FREE = ("N/A", "...", "-")
"""Inputs without content: the answer of a model to them is its bias."""


_MOST = 0.9
"""The minimum share of examples whose options are all of the closed set."""
_MAX_ANSWERS = 30
"""The maximum size of a closed set of options."""


def closed_answers(task: Task) -> tuple[str, ...]:
    """The closed set of a task's answers: its labels, or the options, such as letters or "yes" and "no", that
    stand for choice in nearly every input. Empty if the answers differ from input to input."""
    if task.kind != "options":
        return task.labels
    listed = [{example.target, *example.negatives} for example in (*task.examples, *task.test_examples)]
    counts = Counter(answer for answers in listed for answer in answers)
    closed = {answer for answer, count in counts.items() if count > 1}
    covered = sum(answers <= closed for answers in listed)
    return tuple(sorted(closed)) if covered >= _MOST * len(listed) and len(closed) <= _MAX_ANSWERS else ()


def calibrated(scorer: ScoreClient, task: Task) -> ScoreClient:
    """`scorer` without the bias for a task with a closed set of answers, unchanged for any other task."""
    answers = closed_answers(task)
    return CalibratedScorer(scorer, answers) if answers else scorer


class CalibratedScorer:
    """A client that subtracts from each log-likelihood of `inner` the mean one of the same answer after
    inputs without content, under the same instruction and shots. So its log-likelihoods may be above 0.

    The inputs without content are scored in the same call; their tokens count towards the context of the
    first example.
    """

    def __init__(self, inner: ScoreClient, labels: Sequence[str]) -> None:
        self._inner = inner
        self._labels = tuple(labels)
        first, *others = labels
        self._blanks = tuple(
            Example(f"blank-{number}", text, first, tuple(others)) for number, text in enumerate(CONTENT_FREE)
        )
        # A pool sends each set of examples once, so each extended set is made once.
        self._extended: dict[tuple[Example, ...], tuple[Example, ...]] = {}

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        """As in `ScoreClient.score`."""
        examples = request.examples
        if not examples:
            return ()
        extended = self._extended.setdefault(examples, (*examples, *self._blanks))
        scores = await self._inner.score(replace(request, examples=extended), rounds_left=rounds_left)
        blank_scores = scores[len(examples) :]
        bias = self._bias(blank_scores)
        first, *others = (
            _subtract(bias, example, score)
            for example, score in zip(examples, scores[: len(examples)], strict=True)
        )
        context_tokens = first.context_tokens + sum(score.tokens for score in blank_scores)
        return (replace(first, context_tokens=context_tokens), *others)

    def _bias(self, blank_scores: Sequence[ExampleScore]) -> dict[str, float]:
        """The mean log-likelihood of each label after inputs without content."""
        columns = zip(*((score.target, *score.negatives) for score in blank_scores), strict=True)
        return {
            label: fmean(answer.logprob for answer in column)
            for label, column in zip(self._labels, columns, strict=True)
        }


def _subtract(bias: Mapping[str, float], example: Example, score: ExampleScore) -> ExampleScore:
    def calibrate(text: str, answer: AnswerScore) -> AnswerScore:
        return replace(answer, logprob=answer.logprob - bias.get(text, 0.0))

    return replace(
        score,
        target=calibrate(example.target, score.target),
        negatives=tuple(map(calibrate, example.negatives, score.negatives)),
    )
