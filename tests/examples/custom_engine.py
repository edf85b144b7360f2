"""An engine of your own: a class that is made of the role's configuration and the model's name.

    optimize(data, scorer={"engine": WordScorer, "gpus": 0})
    scorer: {engine: "custom_engine:WordScorer", gpus: 0}      in a configuration

It is made in every replica, on whatever node that is, so its module has to be there; a class of a script or a
notebook is sent along. A rewriter's engine offers `generate`, as in `pmpo_ray.Generator`.
"""

from __future__ import annotations

from pmpo_ray import (
    AnswerScore,
    EngineInfo,
    Example,
    ExampleScore,
    ScorerConfig,
    ScoreRequest,
    ScoreResult,
)


class WordScorer:
    """Takes an answer for the likelier the more of its words the instruction and the input hold."""

    def __init__(self, config: ScorerConfig, model: str) -> None:
        self._model = model

    def info(self) -> EngineInfo:
        """The engine and model of the replica. Scores are kept under these values: change both together."""
        return EngineInfo(
            engine="words",
            model=self._model,
            revision="1",
            parameters=0,
            context_length=100_000,
            layout="plain",
            dtype="float64",
            device="cpu",
        )

    def score(self, request: ScoreRequest) -> ScoreResult:
        """Log-likelihoods of every example's target and negatives, in their order."""
        known = set(request.instruction.lower().split())
        scores = tuple(self._scored(example, known) for example in request.examples)
        return ScoreResult(scores, tokens_computed=sum(score.tokens for score in scores), seconds=0.0)

    def _scored(self, example: Example, known: set[str]) -> ExampleScore:
        context = known | set(example.input.lower().split())
        target, *negatives = (
            self._answer(answer, context) for answer in (example.target, *example.negatives)
        )
        return ExampleScore(target, tuple(negatives), context_tokens=len(context))

    def _answer(self, answer: str, context: set[str]) -> AnswerScore:
        words = answer.lower().split()
        surprise = sum(0.5 if word in context else 3.0 for word in words)
        return AnswerScore(-surprise - 1.0 / (1 + len(context)), len(words))
