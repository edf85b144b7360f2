"""Readings: how likely a text is as the instruction of a task, under the scorer.

A text is read as the answer to a request for an instruction, behind a context such as the description of the
task. The relevance of a text (`relevance`) and its readability (`readability`) rest on these readings.

Invariant: the reading of a text does not depend on the texts beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pmpo_ray.protocols import ScoreClient
from pmpo_ray.search.budget import prompt_estimate
from pmpo_ray.types import AnswerScore, Example, GenerateRequest, ScoreRequest

_ASK = "Write the instruction for this task: tell the reader what to do with an input."


async def readings(
    scorer: ScoreClient, contexts: Sequence[str], texts: Sequence[str], *, rounds_left: int = 0
) -> tuple[list[tuple[AnswerScore, ...]], int]:
    """The readings of each text, one behind each of the contexts, in their order; and the tokens that were
    scored. Raises the errors of the scorer."""
    # Named by their content: a name by number would be that of another text in another request.
    examples = tuple(Example(f"{context}: {text}", context, text) for context in contexts for text in texts)
    scores = await scorer.score(ScoreRequest(_ASK, examples), rounds_left=rounds_left)
    number = len(texts)
    behind = [scores[place * number : (place + 1) * number] for place in range(len(contexts))]
    found = [tuple(score.target for score in row) for row in zip(*behind, strict=True)]
    return found, sum(score.tokens for score in scores)


def surprisal(reading: AnswerScore) -> float:
    """-log p(text | context) in nats per token of the text; infinite if the scorer gave no number."""
    nats = -reading.logprob / reading.tokens
    return nats if math.isfinite(nats) else math.inf


def reading_prompt(context: str) -> int:
    """The tokens of a prompt behind which a text is read, at most."""
    return prompt_estimate(GenerateRequest(context, system=_ASK))
