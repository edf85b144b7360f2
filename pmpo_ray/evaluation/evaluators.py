"""Evaluation of an instruction on held-out examples of a task.

Invariants: every example gets exactly one outcome, in order; an outcome is right only if a right answer wins,
and ties are wrong; a reply without a readable answer is distinguished from a wrong answer, and an example
that does not fit into the model's context from both.

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
from pmpo_ray.outcomes import Method, Outcome
from pmpo_ray.protocols import GenerateClient, ScoreClient
from pmpo_ray.search.objectives import Objective, log_likelihood
from pmpo_ray.search.seeds import seed_of
from pmpo_ray.text import excerpt
from pmpo_ray.types import (
    AnswerScore,
    Example,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    LayoutSetting,
    ScoreRequest,
    Task,
)

FOLLOW_UP = "So what is the final answer? Give the answer alone, in the form that was asked for."
FOLLOW_UP_TOKENS = 128


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
    if method == "likelihood" and task.kind != "text":
        check_choices(task, (*task.examples, *task.test_examples))
    return method


def check_choices(task: Task, examples: Sequence[Example]) -> None:
    """Raise ConfigError if an example has no negative, so that there is nothing to choose from."""
    lacking = [example for example in examples if not example.negatives]
    if lacking:
        remedy = "" if task.kind == "pairs" else ", or set evaluation.method=generation"
        raise ConfigError(
            f"task {task.name!r}: {len(lacking)} of {len(examples)} examples have no negatives, and by "
            f"likelihood an answer is chosen among target and negatives (first: "
            f"{excerpt(lacking[0].input, 60)!r}); give every example negatives{remedy}"
        )


def with_right_answers(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The examples as they are scored: their other right answers in the place of further negatives."""
    return tuple(
        replace(example, negatives=(*example.negatives, *example.also_right))
        if example.also_right
        else example
        for example in examples
    )


@dataclass(frozen=True, slots=True)
class LikelihoodEvaluator:
    """Evaluates by likelihood. `objective` computes the losses; `per_token`: the answer with the highest mean
    log-likelihood per token is chosen, not the one with the highest sum."""

    scorer: ScoreClient
    objective: Objective
    per_token: bool = False

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
        scored = with_right_answers(examples)
        scores = await scored_apart(self.scorer, ScoreRequest(instruction, scored, tuple(shots)))
        return tuple(self._outcome(example, score) for example, score in zip(examples, scores, strict=True))

    def _outcome(self, example: Example, score: ExampleScore | None) -> Outcome:
        if score is None:
            return Outcome(example.id, False, None, fits=False)
        wrong = len(example.negatives)
        negatives, also_right = score.negatives[:wrong], score.negatives[wrong:]
        right = self._likeliest((example.target, *example.also_right), (score.target, *also_right))
        best = self._likeliest(example.negatives, negatives)
        # In a tie no right answer is chosen.
        is_right = right[0] > best[0]
        answer = right[1] if is_right else best[1]
        loss = self.objective(replace(score, negatives=negatives))
        return Outcome(example.id, is_right, answer, loss=loss)

    def _likeliest(self, answers: Sequence[str], scores: Sequence[AnswerScore]) -> tuple[float, str]:
        """The first answer with the highest log-likelihood, and that log-likelihood."""
        values = [log_likelihood(score, self.per_token) for score in scores]
        return max(zip(values, answers, strict=True), key=lambda pair: pair[0])


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
                    max_tokens=FOLLOW_UP_TOKENS,
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
