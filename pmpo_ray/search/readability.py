"""Readability: the surprisal of a text counts beside its loss (`search.readability`).

Candidates are ranked by the loss + `search.readability` x the surprisal of the text,
-log p(text | description) in nats per token under the scorer. A text that a reader of the description would
not expect has to lower the loss by more, as the likelihood of the preferred answer regularises preference
losses.

Invariants: a text is read once for this, and its demonstrations do not change the reading; what was read in
earlier rounds is known from the records alone; the tokens count towards the budget. Without the setting
nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.search import SearchConfig
from pmpo_ray.errors import DataError, EngineError
from pmpo_ray.search.budget import estimated
from pmpo_ray.search.calibration import CONTENT_FREE
from pmpo_ray.search.readings import reading_prompt, readings, surprisal
from pmpo_ray.search.round import Round
from pmpo_ray.types import ScoredCandidate, Task


def context_of(task: Task) -> str:
    """The text behind which instructions for the task are read: its description. A task without one has none
    that its texts could be judged by, so they are read behind an input without content; what is judged then
    is only whether they are fluent."""
    return task.description if task.description.strip() else CONTENT_FREE[0]


async def read(texts: Iterable[str], current: Round) -> dict[str, EngineError | DataError]:
    """Read the texts that were not read before. Return the errors of those that cannot be read, by text."""
    if current.setup.settings.readability is None:
        return {}
    unread = [text for text in dict.fromkeys(texts) if not current.is_read(text)]
    context = context_of(current.setup.task)

    # Each in a request of its own, so that one that is too long fails alone.
    async def attempt(text: str) -> EngineError | DataError | None:
        try:
            [[reading]], tokens = await readings(
                current.setup.scorer, [context], [text], rounds_left=current.rounds_left
            )
        except (EngineError, DataError) as error:
            return error
        current.tokens_scored += tokens
        current.surprisals[text] = surprisal(reading)
        return None

    errors = await gather_or_cancel(map(attempt, unread))
    return {text: error for text, error in zip(unread, errors, strict=True) if error is not None}


def weighted(scored: ScoredCandidate, current: Round) -> ScoredCandidate:
    """The candidate, whose text was read, with its surprisal and its penalty; unchanged without the
    setting."""
    weight = current.setup.settings.readability
    if weight is None:
        return scored
    nats = current.surprisal(scored.candidate.text)
    return replace(scored, surprisal=nats, penalty=weight * nats)


def reading_cost(task: Task, settings: SearchConfig, texts: Sequence[str]) -> int:
    """The tokens that reading these texts takes at most; 0 without the setting."""
    if settings.readability is None:
        return 0
    return sum(reading_prompt(context_of(task)) + estimated(text) for text in texts)


def unread_cost(text: str, current: Round) -> int:
    """The tokens that reading a text takes at most; 0 if it was read before."""
    setup = current.setup
    return 0 if current.is_read(text) else reading_cost(setup.task, setup.settings, [text])
