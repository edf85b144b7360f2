"""Measuring an instruction on held-out examples of a task.

Invariants: every example gets exactly one outcome, in order; it is right only where its own target wins, and
ties are wrong; a reply in which no answer is found is told apart from a wrong one.

By likelihood the model chooses among the target and the negatives that an example brings, which takes no
decoding. By generation it answers, with its reasoning first where the instruction asks for that; where no
answer can be read from the reply, it is asked in a second turn for the answer alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.evaluation import EvaluationConfig
from pmpo_ray.errors import ConfigError, EngineError
from pmpo_ray.evaluation.grading import Grader
from pmpo_ray.protocols import GenerateClient, ScoreClient
from pmpo_ray.search.objectives import Objective
from pmpo_ray.search.seeds import seed_of
from pmpo_ray.types import (
    Example,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    Method,
    Outcome,
    ScoreRequest,
    Task,
)

FOLLOW_UP = "So what is the final answer? Give the answer alone, in the form that was asked for."
_FOLLOW_UP_TOKENS = 64


def method_for(task: Task, settings: EvaluationConfig) -> Method:
    """How the task is evaluated. Raises ConfigError for what it cannot be."""
    wanted = settings.method
    if task.kind == "pairs" and wanted != "likelihood" and settings.judge.model is not None:
        return "judged"
    if wanted == "auto":
        wanted = "generation" if task.kind == "text" else "likelihood"
    if wanted == "generation" and task.kind == "pairs":
        raise ConfigError(
            f"evaluation.method=generation: task {task.name!r} has better and worse answers, of which a "
            "generated one is neither; name a judge in evaluation.judge.model, or set the method to auto or "
            "likelihood"
        )
    if wanted == "likelihood" and not all(example.negatives for example in task.examples):
        raise ConfigError(
            f"evaluation.method=likelihood: some examples of task {task.name!r} have no other answers to "
            "choose from; set the method to auto or generation"
        )
    return wanted


@dataclass(frozen=True, slots=True)
class LikelihoodEvaluator:
    """Evaluates by likelihood; `objective` gives the losses."""

    scorer: ScoreClient
    objective: Objective

    async def evaluate(
        self,
        instruction: str,
        examples: Sequence[Example],
        shots: Sequence[Example],
        repetition: int = 0,  # noqa: ARG002 (nothing is drawn by chance)
    ) -> tuple[Outcome, ...]:
        """One outcome an example. Raises EngineError where one is too long for the model."""
        if not examples:
            return ()
        scores = await self.scorer.score(ScoreRequest(instruction, tuple(examples), tuple(shots)))
        return tuple(self._outcome(example, score) for example, score in zip(examples, scores, strict=True))

    def _outcome(self, example: Example, score: ExampleScore) -> Outcome:
        answers = (example.target, *example.negatives)
        values = [answer.logprob for answer in (score.target, *score.negatives)]
        right = all(values[0] > value for value in values[1:])
        # In a tie the target is not chosen.
        chosen = 0 if right else max(range(1, len(values)), key=values.__getitem__)
        return Outcome(example.id, right, answers[chosen], loss=self.objective(score))


@dataclass(frozen=True, slots=True)
class GenerationEvaluator:
    """Evaluates by generation; replies are judged by `grader`. `seed` is the run's."""

    task: Task
    settings: EvaluationConfig
    generator: GenerateClient
    grader: Grader
    seed: int

    async def evaluate(
        self,
        instruction: str,
        examples: Sequence[Example],
        shots: Sequence[Example],
        repetition: int = 0,
    ) -> tuple[Outcome, ...]:
        """One outcome an example. What is too long for the model is an outcome without an answer."""
        shown = tuple(shots)
        return tuple(
            await gather_or_cancel(self._one(instruction, example, shown, repetition) for example in examples)
        )

    async def _one(
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
        )
        result = await self._generated(request)
        if result is None:
            return Outcome(example.id, False, None)
        reply = result.samples[0].text
        grade = await self.grader.grade(example, reply)
        tokens = result.tokens
        if grade.answer is None and settings.follow_up and reply.strip():
            turn = replace(example, target=reply)
            again = await self._generated(
                replace(
                    request,
                    prompt=FOLLOW_UP,
                    shots=(*shots, turn),
                    max_tokens=_FOLLOW_UP_TOKENS,
                    temperature=0.0,
                )
            )
            if again is not None:
                tokens += again.tokens
                reply = f"{reply}\n\n{again.samples[0].text}"
                grade = await self.grader.grade(example, again.samples[0].text)
        return Outcome(example.id, grade.right, grade.answer, reply, tokens=tokens)

    async def _generated(self, request: GenerateRequest) -> GenerateResult | None:
        try:
            return await self.generator.generate(request)
        except EngineError:
            # An input too long for the context can't be answered.
            return None


Evaluator = LikelihoodEvaluator | GenerationEvaluator
