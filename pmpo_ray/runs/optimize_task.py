"""One task of a run: its search continues from the stored rounds and ends in a stored result.

Invariant: a finished round is in the run folder before the next one begins and before callbacks see it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from pmpo_ray.outcomes import TaskResult
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.runs.budget_level import measure_of, with_level
from pmpo_ray.runs.finish_task import evaluated_by, finish_task
from pmpo_ray.runs.fitting import fit_task
from pmpo_ray.runs.run_context import RunContext
from pmpo_ray.runs.run_folder import changed_data
from pmpo_ray.search.calibration import Calibration
from pmpo_ray.search.loop import search_task
from pmpo_ray.search.meta_prompts import choose_style
from pmpo_ray.search.sense import SenseGate
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.store import RunStore
from pmpo_ray.store.train_examples import stored_form
from pmpo_ray.types import Example, RoundRecord


async def optimize_task(
    run: RunContext, prepared: PreparedTask, on_round: Callable[[RoundRecord], None]
) -> TaskResult:
    """Search one task, continuing from its stored rounds, and evaluate it. `on_round` gets every new round.

    Raises EngineError or DataError if the task cannot be scored or evaluated.
    """
    prepared = prepared.for_rewriter(run.rewriter_info)
    name, store, config = prepared.task.name, run.store, run.config
    fitted = await fit_task(
        prepared,
        config.evaluation,
        evaluated_by(config, prepared),
        run.ruler,
        trained=await asyncio.to_thread(_trained, store, name, prepared.split.train),
    )
    prepared = await with_level(fitted.prepared, config.budget.level, run.ruler)
    fitted = replace(fitted, prepared=prepared)

    async def keep(record: RoundRecord, records: Sequence[RoundRecord]) -> None:
        await asyncio.to_thread(store.write_round, record)
        await asyncio.to_thread(store.write_best, name, records)
        on_round(record)

    style = choose_style(prepared.search.meta_prompt, run.rewriter_info.parameters)
    train, search = prepared.split.train, prepared.search
    setup = SearchSetup(
        task=prepared.task,
        split=prepared.split,
        objective=prepared.objective,
        style=style,
        settings=prepared.search,
        sampling=config.rewriter,
        seed=config.seed,
        scorer=prepared.scoring(fitted.guarded(run.scorer), False),
        rewriter=run.rewriter,
        keep=keep,
        observer=run.observer,
        clock=time.monotonic,
        proposers=prepared.proposers,
        hard_cases=prepared.hard_cases,
        sense=SenseGate.of(prepared.task, train, style, search.named_operators) if search.sense else None,
        calibration=Calibration.of(prepared.task, prepared.search.calibrates),
        measure=measure_of(run.ruler),
    )
    await asyncio.to_thread(_keep_training, store, name, prepared.split.train)
    # Passed on without a reference to the list here: the search drops the scores that it does not need.
    outcome = await search_task(setup, await asyncio.to_thread(store.continue_rounds, name))
    return await finish_task(run, fitted, outcome)


def _trained(store: RunStore, name: str, train: Sequence[Example]) -> Sequence[Example] | None:
    """The training part of the stored rounds of a task whose data give the part `train`; None if there are no
    rounds, or if it is lost and was not the whole part. Raises RunFolderError if it is from other data."""
    last = store.last_round(name)
    kept = store.read_training(name) if last is not None else None
    if last is None or kept is None:
        # A folder of an earlier version does not keep the part.
        return train if last is not None and _losses(last) == len(train) else None
    remaining = iter(stored_form(train))
    if not all(example in remaining for example in kept):
        raise changed_data(name, store.location)
    return kept


def _keep_training(store: RunStore, name: str, train: Sequence[Example]) -> None:
    """Store the training part of a search that begins, or whose file is lost. Raises RunFolderError if the
    stored rounds have losses of other examples."""
    last = store.last_round(name)
    if last is not None and _losses(last) != len(train):
        raise changed_data(name, store.location)
    if last is None or store.read_training(name) is None:
        store.write_training(name, train)


def _losses(record: RoundRecord) -> int:
    return len(record.scored_survivors[0].losses)
