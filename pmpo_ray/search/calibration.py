"""Calibration: scores of answers less the mean scores of the same answers after other inputs.

A model may be biased towards one label or one letter whatever the input. An instruction that only shifts this
bias changes the loss without telling the answers apart any better. After the bias is subtracted from every
score, the loss measures what the input contributes. The bias is measured after inputs without content
(contextual calibration, Zhao et al., 2021, arXiv 2102.09690) or after the training inputs (batch calibration,
Zhou et al., 2024, arXiv 2309.17249), which takes no token more in the search.

Invariants: only answers of a closed set have a bias, and any other answer keeps its log-likelihood; equal
scores give equal calibrated scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from pmpo_ray.config.base import Calibrate
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


def calibrated(
    scorer: ScoreClient, task: Task, calibrate: Calibrate = True, train: Sequence[Example] = ()
) -> ScoreClient:
    """`scorer` without the bias for a task with a closed set of answers, unchanged for any other task.
    `train` is the training part, which "inputs" takes the bias from."""
    calibration = Calibration.of(task, calibrate)
    if calibration is None:
        return scorer
    return CalibratedScorer(scorer, calibration.answers, calibration.blanks or train)


async def biases(
    scorer: ScoreClient,
    task: Task,
    calibrate: Calibrate,
    train: Sequence[Example],
    prompt: ScoreRequest,
) -> dict[str, float]:
    """What calibration subtracts from each answer's log-likelihood under the instruction and the shots of
    `prompt`, in nats, by answer; empty if nothing is calibrated. `scorer` is not calibrated; the examples of
    `prompt` are not read. Raises the errors of the scorer."""
    calibration = Calibration.of(task, calibrate)
    if calibration is None:
        return {}
    references = calibration.blanks or tuple(train)
    scores = await scorer.score(replace(prompt, examples=references))
    return _bias(calibration.answers, list(zip(references, scores, strict=True)))


def extra_examples(calibrate: Calibrate) -> int:
    """The number of examples that are scored for the bias, beside those of the training part."""
    return len(CONTENT_FREE) if calibrate is True else 0


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration of the scores of one instruction on training examples. The bias of an answer is its
    mean log-likelihood after `blanks`, or, if there are none, after the training examples themselves."""

    answers: frozenset[str]
    blanks: tuple[Example, ...]

    @classmethod
    def of(cls, task: Task, calibrate: Calibrate) -> Calibration | None:
        """The calibration of a task; None if nothing is calibrated."""
        answers = closed_answers(task)
        if not calibrate or not answers:
            return None
        return cls(frozenset(answers), () if calibrate == "inputs" else _blanks(answers))

    def applied(
        self, examples: Sequence[Example], scores: Sequence[ExampleScore], blanks: Sequence[ExampleScore]
    ) -> tuple[ExampleScore, ...]:
        """The scores of the examples without the bias. The tokens of `blanks`, the scores of the blanks,
        count towards the context of the first example."""
        pairs = (self.blanks, blanks) if self.blanks else (examples, scores)
        return _without_bias(self.answers, examples, scores, list(zip(*pairs, strict=True)), blanks)


def _blanks(answers: Sequence[str]) -> tuple[Example, ...]:
    first, *others = answers
    return tuple(
        Example(f"blank-{number}", text, first, tuple(others)) for number, text in enumerate(CONTENT_FREE)
    )


class CalibratedScorer:
    """A client that subtracts from each log-likelihood of `inner` the mean one of the same answer after the
    inputs of `references`, under the same instruction and shots. So its log-likelihoods may be above 0.

    References that are not among the requested examples are scored in the same call; their tokens count
    towards the context of the first example.
    """

    def __init__(self, inner: ScoreClient, answers: Collection[str], references: Sequence[Example]) -> None:
        self._inner = inner
        self._answers = frozenset(answers)
        self._references = tuple(references)
        # A pool sends each set of examples once, so each extended set is made once.
        self._extended: dict[tuple[Example, ...], tuple[Example, ...]] = {}

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        """As in `ScoreClient.score`."""
        examples = request.examples
        if not examples:
            return ()
        extended = self._extended.setdefault(examples, self._with_references(examples))
        scores = await self._inner.score(replace(request, examples=extended), rounds_left=rounds_left)
        known = dict(zip(extended, scores, strict=True))
        references = [(example, known[example]) for example in self._references]
        own, more = scores[: len(examples)], scores[len(examples) :]
        return _without_bias(self._answers, examples, own, references, more)

    def _with_references(self, examples: tuple[Example, ...]) -> tuple[Example, ...]:
        own = set(examples)
        missing = tuple(example for example in self._references if example not in own)
        return (*examples, *missing) if missing else examples


def _without_bias(
    answers: Collection[str],
    examples: Sequence[Example],
    scores: Sequence[ExampleScore],
    references: Sequence[tuple[Example, ExampleScore]],
    more: Sequence[ExampleScore],
) -> tuple[ExampleScore, ...]:
    """The scores less the bias that the references show. The tokens of the scores `more` count towards the
    context of the first example."""
    bias = _bias(answers, references)
    pairs = zip(examples, scores, strict=True)
    first, *others = (_subtract(bias, example, score) for example, score in pairs)
    return (replace(first, context_tokens=first.context_tokens + sum(one.tokens for one in more)), *others)


def _bias(answers: Collection[str], references: Sequence[tuple[Example, ExampleScore]]) -> dict[str, float]:
    """The mean log-likelihood of each answer after the inputs that have it among theirs."""
    found: dict[str, list[float]] = {}
    for example, score in references:
        texts = (example.target, *example.negatives)
        for text, answer in zip(texts, (score.target, *score.negatives), strict=True):
            if text in answers:
                found.setdefault(text, []).append(answer.logprob)
    return {text: fmean(values) for text, values in found.items()}


def _subtract(bias: Mapping[str, float], example: Example, score: ExampleScore) -> ExampleScore:
    def calibrate(text: str, answer: AnswerScore) -> AnswerScore:
        return replace(answer, logprob=answer.logprob - bias.get(text, 0.0))

    return replace(
        score,
        target=calibrate(example.target, score.target),
        negatives=tuple(map(calibrate, example.negatives, score.negatives)),
    )
