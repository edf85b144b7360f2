"""The relevance of a text: by how much the task's description makes it likelier,
log p(text | description) - log p(text), in nats per token of the text.

A rewrite about something else is hardly likelier behind the description than behind none. The texts are
scored as answers to the request for an instruction, in the layout of the scorer. `python -m benchmarks.sense`
measures how well a bound on the relevance tells instructions from nonsense.
"""

from __future__ import annotations

from collections.abc import Sequence

from pmpo_ray.protocols import ScoreClient
from pmpo_ray.types import Example, ScoreRequest

_ASK = "Write the instruction for this task: tell the reader what to do with an input."
_NOTHING = "N/A"
"""The input that stands for no description."""


async def relevances(
    scorer: ScoreClient, description: str, texts: Sequence[str], *, rounds_left: int = 0
) -> tuple[list[float], int]:
    """The relevance of each text for the task with this description, and the tokens that were scored. Raises
    the errors of the scorer."""
    examples = tuple(
        Example(f"{kind}-{number}", context, text)
        for kind, context in (("told", description), ("untold", _NOTHING))
        for number, text in enumerate(texts)
    )
    scores = await scorer.score(ScoreRequest(_ASK, examples), rounds_left=rounds_left)
    pairs = zip(scores[: len(texts)], scores[len(texts) :], strict=True)
    gains = [(told.target.logprob - untold.target.logprob) / told.target.tokens for told, untold in pairs]
    return gains, sum(score.tokens for score in scores)
