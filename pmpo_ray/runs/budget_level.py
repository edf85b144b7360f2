"""The token limit that a level of the budget stands for.

Invariant: the limit follows from the first start instruction, the training rows as they were fitted and the
tokenizer, so a continued search has the limit that it began with.
"""

from __future__ import annotations

from dataclasses import replace

from pmpo_ray.config.budget import TEXTS, Level
from pmpo_ray.notes import note
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.runs.fitting import Ruler
from pmpo_ray.search.budget import Measure
from pmpo_ray.search.calibration import Calibration
from pmpo_ray.search.text_cost import text_cost
from pmpo_ray.types import ScoreRequest


def measure_of(ruler: Ruler | None) -> Measure | None:
    """The measure of a ruler, for the search."""
    return None if ruler is None else ruler.lengths


async def training_cost(prepared: PreparedTask, instruction: str, measure: Measure | None) -> int:
    """The tokens of scoring an instruction on the training rows, with what the calibration scores for each
    instruction. Errors as in `text_cost`."""
    split = prepared.split
    calibration = Calibration.of(prepared.task, prepared.search.calibrates)
    blanks = () if calibration is None else calibration.blanks
    request = ScoreRequest(instruction, (*split.train, *blanks), split.shots)
    return await text_cost(request, split.train, measure)


async def with_level(prepared: PreparedTask, level: Level | None, ruler: Ruler | None) -> PreparedTask:
    """`prepared`, whose rows are fitted, with the tokens of `level` (None: none) as the limit of its search,
    unless a lower one is set. A note says what was decided. Errors as in `text_cost`."""
    if level is None:
        return prepared
    text = await training_cost(prepared, prepared.task.instruction, measure_of(ruler))
    own = prepared.search.max_tokens
    limit = TEXTS[level] * text
    lower = own is not None and own < limit
    note(
        f"task {prepared.task.name}: budget {level} is {limit:,} tokens ({TEXTS[level]} texts of {text:,} "
        f"tokens on {len(prepared.split.train)} training rows)"
        + (f"; the lower limit of {own:,} tokens holds" if lower else "")
    )
    if lower:
        return prepared
    return replace(prepared, search=prepared.search.model_copy(update={"max_tokens": limit}))
