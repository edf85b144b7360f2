"""Evaluation of an instruction on held-out examples of a task.

Invariants: every example gets exactly one outcome, in order; an outcome is right only if the example's target
wins, and ties are wrong; a reply without a readable answer is distinguished from a wrong answer, and an
example that does not fit into the model's context from both.

By likelihood, the model chooses between the target and the negatives of an example, without decoding. By
generation, it writes a reply, reasoning first if the instruction says so; if no answer can be read from the
reply, or if it was cut off at its limit, a second turn requests the answer alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.evaluation import EvaluationConfig
from pmpo_ray.errors import ConfigError, EngineError, PromptTooLongError
from pmpo_ray.evaluation.apart import scored_apart
from pmpo_ray.evaluation.grading import Grader
from pmpo_ray.protocols import GenerateClient, ScoreClient
from pmpo_ray.search.objectives import Objective
from pmpo_ray.search.seeds import seed_of
from pmpo_ray.types import (
    Example,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    LayoutSetting,
    Method,
    Outcome,
    ScoreRequest,
    Task,
)

FOLLOW_UP = "So what is the final answer? Give the answer alone, in the form that was asked for."
_FOLLOW_UP_TOKENS = 128


class Evaluator(Protocol):
    """Evaluates instructions on examples of one task."""

    async def evaluate(
        self,
        instruction: str,
        examples: Sequence[Example],
        shots: Sequence[Example],
        repetition: int = 0,
    ) -> tuple[Outcome, ...]:
        """One outcome per example, in order, with `shots` as demonstrations. Sampling differs between
        repetitions."""


def method_for(task: Task, settings: EvaluationConfig) -> Method:
    """The method by which a task is evaluated. Raises ConfigError if the configured one does not fit it."""
    method = settings.method
    if task.kind == "pairs" and method != "likelihood" and settings.judge.model is not None:
        return "judged"
    if method == "auto":
        method = "generation" if task.kind == "text" else "likelihood"
    if method == "generation" and task.kind == "pairs":
        raise ConfigError(
            f"evaluation.method=generation: task {task.name!r} has pairs of a better and a worse answer, and "
            "a generated answer is neither; name a judge in evaluation.judge.model, or set the method to "
            "auto or likelihood"
        )
    if method == "likelihood" and not all(example.negatives for example in task.examples):
        raise ConfigError(
            f"evaluation.method=likelihood: some examples of task {task.name!r} have no negatives to choose "
            "from; set the method to auto or generation"
        )
    return method


@dataclass(frozen=True, slots=True)
class LikelihoodEvaluator:
    """Evaluates by likelihood. `objective` computes the losses."""

    scorer: ScoreClient
    objective: Objective

    async def evaluate(
        self,
        instruction: str,
        examples: Sequence[Example],
        shots: Sequence[Example],
        repetition: int = 0,  # noqa: ARG002 (nothing is sampled)
    ) -> tuple[Outcome, ...]:
        """One outcome per example. Raises EngineError or DataError if more than a few examples cannot be
        scored."""
        if not examples:
            return ()
        scores = await scored_apart(self.scorer, ScoreRequest(instruction, tuple(examples), tuple(shots)))
        return tuple(self._outcome(example, score) for example, score in zip(examples, scores, strict=True))

    def _outcome(self, example: Example, score: ExampleScore | None) -> Outcome:
        if score is None:
            return Outcome(example.id, False, None, fits=False)
        answers = (example.target, *example.negatives)
        values = [answer.logprob for answer in (score.target, *score.negatives)]
        right = all(values[0] > value for value in values[1:])
        # In a tie the target is not chosen.
        chosen = 0 if right else max(range(1, len(values)), key=values.__getitem__)
        return Outcome(example.id, right, answers[chosen], loss=self.objective(score))


@dataclass(frozen=True, slots=True)
class GenerationEvaluator:
    """Evaluates by generation; `grader` grades the replies. `seed` is the seed of the run, `layout` that of
    the scorer: a reply answers the prompt that is scored."""

    task: Task
    settings: EvaluationConfig
    generator: GenerateClient
    grader: Grader
    seed: int
    layout: LayoutSetting = "auto"

    async def evaluate(
        self,
        instruction: str,
        examples: Sequence[Example],
        shots: Sequence[Example],
        repetition: int = 0,
    ) -> tuple[Outcome, ...]:
        """One outcome per example; one without an answer if the model answers with an error."""
        demonstrations = tuple(shots)
        return tuple(
            await gather_or_cancel(
                self._outcome(instruction, example, demonstrations, repetition) for example in examples
            )
        )

    async def _outcome(
        self, instruction: str, example: Example, shots: tuple[Example, ...], repetition: int
    ) -> Outcome:
        settings = self.settings
        request = GenerateRequest(
            prompt=example.input,
            system=instruction,
            shots=shots,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=seed_of(self.seed, self.task.name, example.id, repetition),
            layout=self.layout,
        )
        try:
            result = await self.generator.generate(request)
        except EngineError as error:
            return Outcome(example.id, False, None, fits=not isinstance(error, PromptTooLongError))
        reply = result.samples[0].text
        grade = await self.grader.grade(example, result.samples[0])
        tokens = result.tokens
        if grade.answer is None and settings.follow_up and reply.strip() and self.task.kind != "pairs":
            turn = replace(example, target=reply)
            second = await self._follow_up(
                replace(
                    request,
                    prompt=FOLLOW_UP,
                    shots=(*shots, turn),
                    max_tokens=_FOLLOW_UP_TOKENS,
                    temperature=0.0,
                )
            )
            if second is not None:
                tokens += second.tokens
                reply = f"{reply}\n\n{second.samples[0].text}"
                grade = await self.grader.grade(example, second.samples[0])
        return Outcome(example.id, grade.right, grade.answer, reply, tokens=tokens)

    async def _follow_up(self, request: GenerateRequest) -> GenerateResult | None:
        try:
            return await self.generator.generate(request)
        except EngineError:
            # The reply leaves no room in the context for a question after it.
            return None
