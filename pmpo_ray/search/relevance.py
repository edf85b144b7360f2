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
from pmpo_ray.search.budget import Allowance
from pmpo_ray.search.calibration import CONTENT_FREE
from pmpo_ray.search.gate import NOT_RELEVANT
from pmpo_ray.search.masking import rule_segments
from pmpo_ray.search.readability import context_of
from pmpo_ray.search.readings import reading_prompt, readings, surprisal
from pmpo_ray.search.round import Round
from pmpo_ray.types import AnswerScore, Candidate, Task

READINGS = 2
"""Times that a text is read: behind the description, and behind an input without content."""
_SENTENCES = 100
"""Sentences of a text that are told apart."""


async def relevances(
    scorer: ScoreClient, description: str, texts: Sequence[str], *, rounds_left: int = 0
) -> tuple[list[float], int]:
    """The relevance of each text for the task with this description, and the tokens that were scored. Raises
    the errors of the scorer."""
    read, tokens = await readings(scorer, _contexts(description), texts, rounds_left=rounds_left)
    return list(map(_relevance, read)), tokens


def _contexts(description: str) -> tuple[str, ...]:
    return description, CONTENT_FREE[0]


def _relevance(read: tuple[AnswerScore, ...]) -> float:
    told, untold = read
    return (told.logprob - untold.logprob) / told.tokens


def judging_cost(current: Round) -> int:
    """The tokens that the readings of a rewrite take at most, for its relevance and its readability; 0 if it
    is not read."""
    task, settings = current.setup.task, current.setup.settings
    longest = current.setup.sampling.max_tokens
    if bound_of(task, settings) is not None:
        # The reading for the readability is among these.
        return READINGS * (reading_prompt(task.description) + longest)
    return 0 if settings.readability is None else reading_prompt(context_of(task)) + longest


async def relevant(
    groups: Sequence[Sequence[Candidate]], current: Round, allowance: Allowance
) -> list[list[Candidate]]:
    """The relevant candidates of each group; the others are recorded as refused, or as failed if they cannot
    be scored. One whose sentences all stand in its parent is not judged."""
    task, settings = current.setup.task, current.setup.settings
    bound = bound_of(task, settings)
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
    contexts = _contexts(task.description)
    try:
        read, tokens = await readings(
            current.setup.scorer, contexts, [one.text for one in judged], rounds_left=current.rounds_left
        )
    except (EngineError, DataError) as error:
        for one in judged:
            current.refuse(one, str(error), failed=True)
        refused = {one.id for one in judged}
    else:
        current.tokens_scored += tokens
        allowance.spend(tokens)
        for one, of_one in zip(judged, read, strict=True):
            if settings.readability is not None:
                nats = surprisal(of_one[contexts.index(context_of(task))])
                # It may have been read before, with other demonstrations.
                current.surprisals.setdefault(one.text, nats)
            if _relevance(of_one) < bound:
                current.refuse(one, NOT_RELEVANT)
                refused.add(one.id)
    return [[one for one in group if one.id not in refused] for group in groups]


def _sentences(text: str) -> set[str]:
    return {part.text for part in rule_segments(text, _SENTENCES)}


def bound_of(task: Task, settings: SearchConfig) -> float | None:
    """The bound on the relevance; None if nothing is judged. Only tasks with labels are: a hint such as "take
    a deep breath" serves a task whose answers are reasoned out."""
    return settings.relevance if settings.sense and task.labels else None
