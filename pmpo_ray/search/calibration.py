"""Scores of labels relative to what the same labels score behind inputs without content.

A model may lean to one label whatever it is asked, and an instruction that only moves the leaning changes the
loss without telling the labels apart any better. Taking the leaning away from every score (contextual
calibration: Zhao et al., 2021, arXiv 2102.09690) leaves the loss what the input adds.

Invariants: an answer that is no label keeps its log-likelihood; equal scores give equal calibrated scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from pmpo_ray.protocols import ScoreClient
from pmpo_ray.types import AnswerScore, Example, ExampleScore, ScoreRequest, Task

CONTENT_FREE = ("N/A", "...", "-")
"""Inputs that say nothing: what a model answers to them is its leaning."""


def calibrated(scorer: ScoreClient, task: Task) -> ScoreClient:
    """`scorer` with the leaning taken away, for a task with labels; itself for any other."""
    return CalibratedScorer(scorer, task.labels) if task.kind == "labels" else scorer


class CalibratedScorer:
    """A client whose log-likelihoods are those of `inner` less the mean of the same label's behind inputs
    without content, under the same instruction and shots. So they may be above 0.

    The inputs without content are scored in the same call; their tokens are counted with the first example's
    context.
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
        of_blanks = scores[len(examples) :]
        leaning = self._leaning(of_blanks)
        found = [
            _less(example, score, leaning)
            for example, score in zip(examples, scores[: len(examples)], strict=True)
        ]
        spent = found[0].context_tokens + sum(score.tokens for score in of_blanks)
        return (replace(found[0], context_tokens=spent), *found[1:])

    def _leaning(self, of_blanks: Sequence[ExampleScore]) -> dict[str, float]:
        """The mean log-likelihood of each label behind inputs without content."""
        columns = zip(*((score.target, *score.negatives) for score in of_blanks), strict=True)
        return {
            label: fmean(answer.logprob for answer in column)
            for label, column in zip(self._labels, columns, strict=True)
        }


def _less(example: Example, score: ExampleScore, leaning: Mapping[str, float]) -> ExampleScore:
    def less(text: str, answer: AnswerScore) -> AnswerScore:
        return replace(answer, logprob=answer.logprob - leaning.get(text, 0.0))

    return replace(
        score,
        target=less(example.target, score.target),
        negatives=tuple(map(less, example.negatives, score.negatives)),
    )
