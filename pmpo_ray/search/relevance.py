"""The gate's last question: is a rewrite about the task at all?

The relevance of a text is by how much the task's description makes it likelier,
log p(text | description) - log p(text), in nats per token of the text, under the scorer. A text about
something else is hardly likelier behind the description than behind none. `python -m benchmarks.sense`
measures how well a bound on it tells instructions from nonsense.

Invariants: the relevance of a text does not depend on the texts beside it; its tokens count towards the
budget.
"""

from __future__ import annotations

from collections.abc import Sequence

from pmpo_ray.config.search import SearchConfig
from pmpo_ray.errors import DataError, EngineError
from pmpo_ray.protocols import ScoreClient
from pmpo_ray.search.budget import Allowance, prompt_estimate
from pmpo_ray.search.calibration import CONTENT_FREE
from pmpo_ray.search.gate import NOT_RELEVANT
from pmpo_ray.search.masking import rule_segments
from pmpo_ray.search.round import Round
from pmpo_ray.types import Candidate, Example, GenerateRequest, ScoreRequest, Task

_ASK = "Write the instruction for this task: tell the reader what to do with an input."
READINGS = 2
"""Times that a text is read: behind the description, and behind an input without content."""
_SENTENCES = 100
"""Sentences of a text that are told apart."""


async def relevances(
    scorer: ScoreClient, description: str, texts: Sequence[str], *, rounds_left: int = 0
) -> tuple[list[float], int]:
    """The relevance of each text for the task with this description, and the tokens that were scored. Raises
    the errors of the scorer."""
    # Named by their content: a name by number would be that of another text in another request.
    examples = tuple(
        Example(f"{context}: {text}", context, text)
        for context in (description, CONTENT_FREE[0])
        for text in texts
    )
    scores = await scorer.score(ScoreRequest(_ASK, examples), rounds_left=rounds_left)
    pairs = zip(scores[: len(texts)], scores[len(texts) :], strict=True)
    gains = [(told.target.logprob - untold.target.logprob) / told.target.tokens for told, untold in pairs]
    return gains, sum(score.tokens for score in scores)


def judging_cost(current: Round) -> int:
    """The tokens that judging a rewrite takes at most; 0 if rewrites are not judged."""
    setup = current.setup
    if bound_of(setup.task, setup.settings) is None:
        return 0
    return READINGS * (judging_prompt(setup.task) + setup.sampling.max_tokens)


def judging_prompt(task: Task) -> int:
    """The tokens of a prompt behind which a text is judged, at most."""
    return prompt_estimate(GenerateRequest(task.description, system=_ASK))


async def relevant(
    groups: Sequence[Sequence[Candidate]], current: Round, allowance: Allowance
) -> list[list[Candidate]]:
    """The relevant candidates of each group; the others are recorded as refused, or as failed if they cannot
    be scored. One whose sentences all stand in its parent is not judged."""
    bound = bound_of(current.setup.task, current.setup.settings)
    if bound is None:
        return [list(group) for group in groups]
    instructions = {parent.candidate.id: parent.candidate.text for parent in current.parents}
    judged = [
        one
        for group in groups
        for one in group
        if not _sentences(one.text) <= _sentences(instructions[one.parent or ""])
    ]
    if not judged:
        return [list(group) for group in groups]
    refused: set[str] = set()
    try:
        values, tokens = await relevances(
            current.setup.scorer,
            current.setup.task.description,
            [one.text for one in judged],
            rounds_left=current.rounds_left,
        )
    except (EngineError, DataError) as error:
        for one in judged:
            current.refuse(one, str(error), failed=True)
        refused = {one.id for one in judged}
    else:
        current.tokens_scored += tokens
        allowance.spend(tokens)
        for one, value in zip(judged, values, strict=True):
            if value < bound:
                current.refuse(one, NOT_RELEVANT)
                refused.add(one.id)
    return [[one for one in group if one.id not in refused] for group in groups]


def _sentences(text: str) -> set[str]:
    return {part.text for part in rule_segments(text, _SENTENCES)}


def bound_of(task: Task, settings: SearchConfig) -> float | None:
    """The bound on the relevance; None if nothing is judged. Only tasks with labels are: a hint such as "take
    a deep breath" serves a task whose answers are reasoned out."""
    return settings.relevance if settings.sense and task.labels else None
