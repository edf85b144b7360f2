"""The lengths that the plan of a search rests on, asked of the scorer's tokenizer.

Invariants: nothing is computed by a model; where the engine tells no lengths, they are estimated from the
texts as for a token budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.base import Calibrate
from pmpo_ray.config.run import RunConfig
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.runs.budget_level import training_cost
from pmpo_ray.runs.plan_tokens import CLOSING_TOKENS, Part, Reach, Sizes
from pmpo_ray.search.budget import TURN_TOKENS, Measure, estimated, prompt_estimate
from pmpo_ray.search.calibration import Calibration
from pmpo_ray.search.compose import COMPOSE, Compose
from pmpo_ray.search.masking import mask_prompt
from pmpo_ray.search.meta_prompts import Style
from pmpo_ray.search.readability import context_of
from pmpo_ray.search.readings import reading_prompt
from pmpo_ray.search.relevance import bound_of
from pmpo_ray.search.text_cost import text_cost
from pmpo_ray.search.writers import WRITERS
from pmpo_ray.types import OPERATORS, Example, GenerateRequest, ScoreRequest

_SHORTEST = "."
"""A text of one token."""
_SEAM = 2
"""Tokens by which a text in a prompt may be longer than the prompt is without it, its one token included."""


async def sizes_of(prepared: PreparedTask, config: RunConfig, style: Style, measure: Measure | None) -> Sizes:
    """The lengths of a search whose rows are fitted, with the meta-prompts in `style`. Errors as in
    `text_cost`."""
    task, split, search = prepared.task, prepared.split, prepared.search
    calibration = Calibration.of(task, search.calibrates)
    blanks = () if calibration is None else calibration.blanks
    ruler = _TextRuler(prepared, measure)
    costs = await gather_or_cancel(training_cost(prepared, text, measure) for text in task.instructions)
    reading = 0 if search.readability is None else reading_prompt(context_of(task))
    read = [0] * len(costs)
    if reading:
        lengths = await ruler.instructions(task.instructions)
        read = [reading + length + CLOSING_TOKENS for length in lengths]
    start = await ruler.instruction(task.instruction)
    longest_shots, mean_shots = await ruler.demonstrations(min(search.demonstrations, len(split.train) - 1))
    judged = bound_of(task, search) is not None and _asks(prepared)
    return Sizes(
        training=Part(costs[0], len(split.train) + len(blanks)),
        seeds=tuple(map(sum, zip(costs, read, strict=True))),
        # The bias over inputs is there taken over these rows themselves.
        validation=await part_of(prepared, split.validation, search.calibrates is True, measure),
        start=max(0, start - _SEAM),
        start_characters=len(task.instruction),
        reach=await _reach(prepared, config, ruler),
        characters=_characters(prepared),
        shots=longest_shots,
        mean_shots=mean_shots,
        mask=estimated(search.mask_token) + _SEAM,
        forms={name: _form(prepared, style, name) for name in WRITERS if name in search.named_operators},
        mask_form=prompt_estimate(GenerateRequest(mask_prompt("", search.max_segments))),
        judging=reading_prompt(task.description) if judged else 0,
        reading=reading,
        eligible=sum(example.weight > 0 for example in split.train),
    )


async def part_of(
    prepared: PreparedTask, examples: Sequence[Example], calibrate: Calibrate, measure: Measure | None
) -> Part:
    """A part other than the training rows under the start instruction, with what the calibration scores in
    addition. Errors as in `text_cost`."""
    if not examples:
        return Part(0, 0)
    split = prepared.split
    calibration = Calibration.of(prepared.task, calibrate)
    known = set(examples)
    references = () if calibration is None else calibration.blanks or split.train
    rows = (*examples, *(example for example in references if example not in known))
    request = ScoreRequest(prepared.task.instruction, rows, split.shots)
    return Part(await text_cost(request, split.train, measure), len(rows))


@dataclass(frozen=True, slots=True)
class _TextRuler:
    """Measures the parts of a task's prompts, from above."""

    prepared: PreparedTask
    measure: Measure | None

    async def instruction(self, text: str) -> int:
        """The tokens of an instruction in a prompt."""
        whole, short = await gather_or_cancel(map(self._context, (text, _SHORTEST)))
        return estimated(text) if whole is None or short is None else max(0, whole - short) + _SEAM

    async def _context(self, instruction: str) -> int | None:
        """The tokens of a short prompt with this instruction; None if the engine does not tell."""
        split = self.prepared.split
        example = min(split.train, key=lambda one: len(one.input))
        request = ScoreRequest(instruction, (example,), split.shots)
        lengths = None if self.measure is None else await self.measure(request)
        return None if lengths is None else lengths[0].context

    async def instructions(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each of some instructions."""
        return await gather_or_cancel(map(self.instruction, texts))

    async def demonstrations(self, number: int) -> tuple[int, int]:
        """The tokens of so many training rows as demonstrations: of the longest ones, and of as many of mean
        length."""
        if number <= 0:
            return 0, 0
        task, split = self.prepared.task, self.prepared.split
        rows = (Example("", _SHORTEST, "."), *(Example(one.id, one.input, one.target) for one in split.train))
        request = ScoreRequest(task.instruction, rows, split.shots)
        lengths = None if self.measure is None else await self.measure(request)
        if lengths is None:
            turns = [estimated(one.input) + estimated(one.target) for one in split.train]
        else:
            short, *each = lengths
            turns = [max(0, one.context - short.context) + _SEAM + one.answer for one in each]
        template = number * 2 * TURN_TOKENS
        return sum(sorted(turns)[-number:]) + template, round(number * fmean(turns)) + template


def own_operators(prepared: PreparedTask) -> tuple[str, ...]:
    """The operators of the user's own, by name."""
    return tuple(name for name in prepared.proposers if name not in OPERATORS)


async def _reach(prepared: PreparedTask, config: RunConfig, ruler: _TextRuler) -> Reach:
    """The tokens that instructions may reach."""
    task, search = prepared.task, prepared.search
    starts = await ruler.instructions(task.instructions)
    like = (*task.instructions, task.description)
    limit = max(*starts, _estimated_of(search.max_instruction_chars, like))
    base = max(starts)
    if own_operators(prepared):
        base = limit
    elif _asks(prepared):
        # The same model reads a text as it wrote it; of another one only the characters are known.
        same = config.scorer_model == config.rewriter_model
        base = max(base, min(limit, config.rewriter.max_tokens + _SEAM) if same else limit)
    composed = prepared.proposers.get(COMPOSE)
    if not isinstance(composed, Compose):
        return Reach(base, limit)
    described = await ruler.instruction(task.description) if task.description else 0
    places = [await ruler.instructions(sentences) for sentences in composed.sentences.by_place.values()]
    return _composed(max(base, described), limit, places, starts, writes=_written(prepared))


def _characters(prepared: PreparedTask) -> Reach:
    """The characters that instructions may reach."""
    task, search = prepared.task, prepared.search
    starts = [len(text) for text in task.instructions]
    limit = max(*starts, search.max_instruction_chars)
    base = limit if _written(prepared) else max(starts)
    composed = prepared.proposers.get(COMPOSE)
    if not isinstance(composed, Compose):
        return Reach(base, limit)
    # A blank stands between two sentences.
    places = [[len(one) + 1 for one in sentences] for sentences in composed.sentences.by_place.values()]
    return _composed(max(base, len(task.description)), limit, places, starts, writes=_written(prepared))


def _written(prepared: PreparedTask) -> bool:
    """True if an operator other than "compose" makes new texts."""
    return _asks(prepared) or bool(own_operators(prepared))


def _asks(prepared: PreparedTask) -> bool:
    """True if a built-in operator asks a model to write."""
    return not set(WRITERS).isdisjoint(prepared.search.named_operators)


def _composed(
    base: int, limit: int, places: Sequence[Sequence[int]], starts: Sequence[int], *, writes: bool
) -> Reach:
    """The reach of texts that are put together from sentences with these lengths, by place, and from those
    of other texts. `base` holds all sentences of the longest of the `starts` and of the description; if
    something `writes` new texts, a sentence may be as long as one of these, and there is no end of them."""
    lengths = [length for place in places for length in place]
    whole = sum(max(place, default=0) for place in places)
    if len(starts) > 1:
        # In the first round a start may take over a sentence of another one, which may be all of it.
        whole = max(whole, *starts)
    if writes:
        return Reach(base, limit, whole, max(base, *lengths, 0), limit)
    library = sum(lengths) + base + sum(starts) - max(starts)
    return Reach(base, limit, whole, max(base, *lengths, 0), library)


def _estimated_of(characters: int, like: Sequence[str]) -> int:
    """The tokens of so many characters of texts like these, estimated from above."""
    return math.ceil(characters * max(estimated(text) / len(text) for text in like if text))


def _form(prepared: PreparedTask, style: Style, writer: str) -> int:
    """The tokens of a writer's longest request, without the instruction and the hints."""
    asks, limit = WRITERS[writer], prepared.search.max_instruction_chars
    prompt = asks.longest(prepared.task, prepared.split.train, style, limit)
    return prompt_estimate(GenerateRequest(prompt, shots=asks.shots(style)))
