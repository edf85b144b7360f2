"""One task of a run: its search continues from the stored rounds and ends in a stored result.

Invariant: a finished round is in the run folder before the next one begins and before callbacks see it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.runs.finish_task import evaluated_by, finish_task
from pmpo_ray.runs.fitting import fit_task
from pmpo_ray.runs.run_context import RunContext
from pmpo_ray.search.loop import search_task
from pmpo_ray.search.meta_prompts import choose_style
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.types import RoundRecord, TaskResult


async def optimize_task(
    run: RunContext, prepared: PreparedTask, on_round: Callable[[RoundRecord], None]
) -> TaskResult:
    """Search one task, continuing from its stored rounds, and evaluate it. `on_round` gets every new round.

    Raises EngineError or DataError if the task cannot be scored or evaluated.
    """
    name, store, config = prepared.task.name, run.store, run.config
    begun = bool(await asyncio.to_thread(store.count_rounds, name))
    fitted = await fit_task(
        prepared,
        config.evaluation,
        evaluated_by(run, prepared),
        run.ruler,
        # A folder of an earlier version does not keep the part; it was the whole one.
        trained=await asyncio.to_thread(store.read_training, name) or prepared.split.train if begun else None,
    )
    prepared = fitted.prepared

    async def keep(record: RoundRecord, records: Sequence[RoundRecord]) -> None:
        await asyncio.to_thread(store.write_round, record)
        await asyncio.to_thread(store.write_best, name, records)
        on_round(record)

    setup = SearchSetup(
        task=prepared.task,
        split=prepared.split,
        objective=prepared.objective,
        style=choose_style(prepared.search.meta_prompt, run.rewriter_info.parameters),
        settings=prepared.search,
        sampling=config.rewriter,
        seed=config.seed,
        scorer=prepared.scoring(fitted.guarded(run.scorer), prepared.search.calibrate),
        rewriter=run.rewriter,
        keep=keep,
        observer=run.observer,
        clock=time.monotonic,
        proposers=prepared.proposers,
    )
    if not begun:
        await asyncio.to_thread(store.write_training, name, prepared.split.train)
    # Passed on without a reference to the list here: the search drops the scores that it does not need.
    outcome = await search_task(setup, await asyncio.to_thread(store.read_rounds, name))
    return await finish_task(run, fitted, outcome)
