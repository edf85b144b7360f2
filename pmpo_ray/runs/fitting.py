"""The rows of a task that fit into a model's context, found before the first round.

Invariants:
- Every row that is kept fits with every candidate that the search accepts: with the start instruction it
  leaves room for a longer one, further starts among them, and a candidate that outgrows the room of the
  longest row fails.
- Rows that are left out are counted and named in one warning; a search without enough of them is an error.
- The training part of a search that has begun stays as it is.
- An engine that does not tell lengths loses no row here; the evaluation finds what does not fit.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.evaluation import EvaluationConfig
from pmpo_ray.config.search import SearchConfig
from pmpo_ray.errors import DataError, PromptTooLongError
from pmpo_ray.outcomes import ConditionResult, Method
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.protocols import ScoreClient
from pmpo_ray.tasks.split import MIN_TRAIN
from pmpo_ray.text import excerpt
from pmpo_ray.types import Example, ExampleScore, PromptLength, ScoreRequest

_log = logging.getLogger(__name__)

Measure = Callable[[ScoreRequest], Awaitable[tuple[PromptLength, ...] | None]]

_CHARACTERS_PER_TOKEN = 4
"""A rough estimate for instructions."""
_SHARE = 4
"""At most this fraction of the context is kept free for a longer instruction, and for a reply."""
_SLACK = 8
"""Tokens by which the length of a prompt may differ from the sum of its parts."""
_NAMED = 3
"""Rows that a warning names."""


@dataclass(frozen=True, slots=True)
class Ruler:
    """Measures prompts with a model's tokenizer; its context holds `context` tokens (0: unknown)."""

    measure: Measure
    context: int

    async def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...] | None:
        """The lengths of the prompts of a request; None if they or the context are unknown."""
        if self.context <= 0 or not request.examples:
            return None
        return await self.measure(request)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A task with the rows that fit. `held_out` are the rows to evaluate, `too_long` the number of those that
    were left out. `contexts` has the length of each training row's prompt with the start instruction, and
    `room` the tokens by which an instruction may be longer; None if no lengths are known."""

    prepared: PreparedTask
    held_out: tuple[Example, ...]
    too_long: int = 0
    contexts: Mapping[str, int] | None = None
    room: int = 0

    def guarded(self, scorer: ScoreClient) -> ScoreClient:
        """`scorer`, which raises PromptTooLongError for an instruction that outgrows the room."""
        return scorer if self.contexts is None else _GuardedScorer(scorer, self.contexts, self.room)


async def fit_task(
    prepared: PreparedTask,
    evaluation: EvaluationConfig,
    method: Method | None,
    ruler: Ruler | None,
    trained: Sequence[Example] | None,
) -> Fitted:
    """The rows of a task that fit with its start instruction and shots. `method` is that of the evaluation,
    None for none; `trained` is the training part of a search that has begun, None before.

    Raises DataError if too few training rows fit.
    """
    if trained is not None:
        prepared = replace(prepared, split=replace(prepared.split, train=tuple(trained)))
    split, start = prepared.split, prepared.task.instruction
    held_out = split.test[: evaluation.limit] if method is not None else ()
    parts = {"training": split.train, "validation": split.validation, "held-out": held_out}
    unmeasured = Fitted(prepared, held_out)
    if ruler is None:
        return unmeasured
    rows = tuple(example for part in parts.values() for example in part)
    lengths = await ruler.lengths(ScoreRequest(start, rows, split.shots))
    if lengths is None:
        return unmeasured
    known = {example.id: length for example, length in zip(rows, lengths, strict=True)}
    totals = {example.id: _total(known[example.id]) for part in list(parts.values())[:2] for example in part}
    reply = min(evaluation.max_tokens, ruler.context // _SHARE) if method == "generation" else None
    totals |= {example.id: _total(known[example.id], reply) for example in held_out}
    limit = ruler.context - await _room(prepared, known, ruler)
    kept = {
        name: part
        if name == "training" and trained is not None
        else tuple(e for e in part if totals[e.id] <= limit)
        for name, part in parts.items()
    }
    _report(prepared.task.name, parts, kept, totals, ruler.context, prepared.search)
    if len(kept["training"]) < MIN_TRAIN:
        raise DataError(_too_few(prepared, len(kept["training"]), totals, ruler.context))
    # The engine itself refuses an instruction with which a training row does not fit.
    unseen = (*kept["validation"], *kept["held-out"])
    longest = max((totals[example.id] for example in unseen), default=0)
    return Fitted(
        replace(prepared, split=replace(split, train=kept["training"], validation=kept["validation"])),
        held_out=kept["held-out"],
        too_long=len(held_out) - len(kept["held-out"]),
        contexts={example.id: known[example.id].context for example in kept["training"]},
        room=max(0, ruler.context - longest - _SLACK),
    )


async def fitting_examples(
    task: str, examples: Sequence[Example], request: ScoreRequest, ruler: Ruler, reply: int | None
) -> tuple[Example, ...]:
    """The examples that fit under the instruction and after the shots of `request`, with `reply` tokens for a
    generated reply (None: with their longest answer). The others are named in a warning."""
    lengths = await ruler.lengths(replace(request, examples=tuple(examples)))
    if lengths is None:
        return tuple(examples)
    room = None if reply is None else min(reply, ruler.context // _SHARE)
    totals = {e.id: _total(length, room) for e, length in zip(examples, lengths, strict=True)}
    kept = tuple(example for example in examples if totals[example.id] <= ruler.context)
    _report(task, {"held-out": examples}, {"held-out": kept}, totals, ruler.context)
    return kept


def on_shared_examples(results: Sequence[ConditionResult]) -> list[ConditionResult]:
    """The results of one task with one model, reduced to the examples that have an outcome under all its
    conditions that have outcomes at all: instructions are compared on the same examples."""
    measured = [{outcome.example for outcome in one.outcomes} for one in results if one.outcomes]
    shared = set.intersection(*measured) if measured else set()
    return [_only(shared, one) for one in results]


def _only(shared: set[str], one: ConditionResult) -> ConditionResult:
    kept = [index for index, outcome in enumerate(one.outcomes) if outcome.example in shared]
    return replace(
        one,
        outcomes=tuple(one.outcomes[index] for index in kept),
        labels=tuple(one.labels[index] for index in kept) if one.labels else (),
    )


@dataclass(frozen=True, slots=True)
class _GuardedScorer:
    """A ScoreClient that refuses an instruction with which the longest row does not fit. `contexts` has the
    lengths of prompts with the start instruction, `room` the tokens that it may grow by."""

    inner: ScoreClient
    contexts: Mapping[str, int]
    room: int

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        scores = await self.inner.score(request, rounds_left=rounds_left)
        growth = max(
            (
                score.context_tokens - self.contexts[example.id]
                for example, score in zip(request.examples, scores, strict=True)
                if example.id in self.contexts
            ),
            default=0,
        )
        if growth > self.room:
            raise PromptTooLongError(
                f"the instruction with its demonstrations is {growth} tokens longer than the start "
                f"instruction, and the longest row leaves room for {self.room} in the model's context"
            )
        return scores


def _total(length: PromptLength, reply: int | None = None) -> int:
    return length.context + (length.answer if reply is None else reply)


async def _room(prepared: PreparedTask, known: Mapping[str, PromptLength], ruler: Ruler) -> int:
    """The tokens kept free for another instruction in place of the start: for one of `max_instruction_chars`
    if the search makes any, and for the longest of the further starts, whatever it takes. `known` has the
    lengths of prompts with the start."""
    task, split, search = prepared.task, prepared.split, prepared.search
    longer = (search.max_instruction_chars - len(task.instruction)) // _CHARACTERS_PER_TOKEN
    made = min(max(0, longer), ruler.context // _SHARE) if search.rounds else 0
    example = split.train[0]
    further = await gather_or_cancel(
        ruler.lengths(ScoreRequest(text, (example,), split.shots)) for text in task.starts
    )
    contexts = [lengths[0].context for lengths in further if lengths is not None]
    return max(made, *(context - known[example.id].context + _SLACK for context in contexts), 0)


def _report(
    task: str,
    parts: Mapping[str, Sequence[Example]],
    kept: Mapping[str, Sequence[Example]],
    totals: Mapping[str, int],
    context: int,
    search: SearchConfig | None = None,
) -> None:
    """One warning about all rows that are left out."""
    counts, left_out = [], []
    for name, part in parts.items():
        fitting = {example.id for example in kept[name]}
        missing = [example for example in part if example.id not in fitting]
        left_out += missing
        if missing:
            counts.append(f"{len(missing):,} of {len(part):,} {name} rows")
    if not left_out:
        return
    longest = sorted(left_out, key=lambda example: totals[example.id], reverse=True)[:_NAMED]
    room = ""
    if search is not None:
        room = f" and room for a longer one (search.max_instruction_chars={search.max_instruction_chars})"
    _log.warning(
        "task %s: %s left out, too long for the model's context of %d tokens with the instruction%s%s: %s",
        task,
        ", ".join(counts),
        context,
        room,
        "" if len(left_out) <= _NAMED else "; the longest",
        "; ".join(_named(example, totals) for example in longest),
    )


def _named(example: Example, totals: Mapping[str, int]) -> str:
    return f"{example.id} ({excerpt(example.input, 40)!r}, {totals[example.id]:,} tokens)"


def _too_few(prepared: PreparedTask, fitting: int, totals: Mapping[str, int], context: int) -> str:
    split = prepared.split
    shortest = min(totals[example.id] for example in split.train)
    shots = f" and {len(split.shots)} shots" if split.shots else ""
    starts = " or the longest start instruction" if prepared.task.starts else ""
    return (
        f"task {prepared.task.name!r}: {fitting} of {len(split.train)} training rows fit into the "
        f"context of {context} tokens, and {MIN_TRAIN} or more are needed; the shortest takes {shortest} "
        f"with the instruction{shots}; shorten them{starts}, lower search.max_instruction_chars or "
        "split.shots, or use a model with a longer context"
    )
