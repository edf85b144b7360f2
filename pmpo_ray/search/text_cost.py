"""The tokens of scoring a text, known before it is scored.

Invariant: where the engine tells lengths, the tokens are those that the scores will have
(`ExampleScore.tokens`); elsewhere they are estimated from above.
"""

from __future__ import annotations

from collections.abc import Sequence

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.search.budget import Measure, estimated, prompt_estimate
from pmpo_ray.search.leave_one_out import apart
from pmpo_ray.types import Example, GenerateRequest, ScoreRequest


async def text_cost(request: ScoreRequest, train: Sequence[Example], measure: Measure | None) -> int:
    """The tokens of scoring an instruction on the examples of `request`, no training example behind itself.
    `measure` tells the lengths of prompts (None: they are estimated). Raises the errors of `measure`."""
    if not request.examples:
        return 0
    return sum(await gather_or_cancel(_cost(part, measure) for part in apart(request, train)))


async def _cost(request: ScoreRequest, measure: Measure | None) -> int:
    # A length is that of the longest answer, so every answer is asked about alone.
    owners = [index for index, one in enumerate(request.examples) for _ in (one.target, *one.negatives)]
    alone = tuple(
        Example(one.id, one.input, answer)
        for one in request.examples
        for answer in (one.target, *one.negatives)
    )
    asked = ScoreRequest(request.instruction, alone, request.shots)
    lengths = None if measure is None else await measure(asked)
    if lengths is None:
        return _estimated(request)
    # The prompt of an example is read once for all of its answers.
    contexts = {owner: length.context for owner, length in zip(owners, lengths, strict=True)}
    return sum(contexts.values()) + sum(length.answer for length in lengths)


def _estimated(request: ScoreRequest) -> int:
    tokens = 0
    for example in request.examples:
        prompt = GenerateRequest(example.input, system=request.instruction, shots=request.shots)
        # One token closes an answer.
        answers = (estimated(answer) + 1 for answer in (example.target, *example.negatives))
        tokens += prompt_estimate(prompt) + sum(answers)
    return tokens
