"""The modes of running a workload: all tasks at once in virtual time or on real actors, or one after another.

Invariant: the driver is that of the product, with search, score memory, clients and pool; only the replicas,
and in virtual time the clock, are replaced.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
import ray

from benchmarks.scheduling.ledger import TASK, Ledger, RecordedPool, Row
from benchmarks.scheduling.virtual import VirtualLauncher, run_virtual
from benchmarks.scheduling.work import (
    REWRITER_BATCH,
    FreshRewriter,
    RewriterReplica,
    WorkScorer,
    bbh_shaped,
    scorer_model,
    search_setup,
)
from pmpo_ray.actors.autoscaling import Bounds
from pmpo_ray.actors.clients import Examples, RewriterPool, ScorerPool
from pmpo_ray.actors.handles import Launcher
from pmpo_ray.actors.launcher import RayLauncher
from pmpo_ray.actors.pool_spec import PoolSpec
from pmpo_ray.actors.resources import ReplicaPlan
from pmpo_ray.actors.scorer import ScorerActor
from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.engines import ScorerConfig
from pmpo_ray.runs.score_memory import RememberingScorer, ScoreMemory
from pmpo_ray.search.loop import search_task
from pmpo_ray.types import Task

SCORED_PER_S, WRITTEN_PER_S = 6000.0, 50.0
"""Tokens a second of a replica: scored in all, and written in each of the streams of a rewriter. About a 14B
model on one large GPU."""
CHUNK = 64


@dataclass(frozen=True, slots=True)
class Load:
    """The size of a workload: tasks and rounds, and the number of scorers and rewriters."""

    tasks: int
    rounds: int
    replicas: int

    @property
    def rewriters(self) -> int:
        """A rewriter for four scorers: their work is about as long then."""
        return max(1, self.replicas // 4)


@dataclass(slots=True)
class _Course:
    """The measurements of a run of searches."""

    ledger: Ledger
    makespan: float
    processor: float
    idle: float


def virtual(load: Load, *, sequential: bool = False) -> Row:
    """All tasks at once in virtual time; with `sequential` one after another."""
    scorer, rewriter = WorkScorer(SCORED_PER_S), FreshRewriter(WRITTEN_PER_S)
    scorers = VirtualLauncher(scorer.info(), 1, scorer.on_call)
    rewriters = VirtualLauncher(rewriter.info(), REWRITER_BATCH, rewriter.answer)

    def same(examples: Examples) -> object:
        return examples

    course = run_virtual(_run(load, scorers, rewriters, same, sequential=sequential))
    course.processor -= scorers.engine_seconds + rewriters.engine_seconds
    return _row("sequential" if sequential else "virtual", load, course)


def on_ray(load: Load, speed: float) -> Row:
    """All tasks at once on real actors in real time, `speed` times as fast as in virtual time."""
    ray.init(
        address="local",
        num_cpus=load.replicas + load.rewriters,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        plan = ReplicaPlan(load.replicas, 1, 0, None, threads=1, device="cpu")
        config = ScorerConfig(engine="simulated", chunk_examples=CHUNK)
        scorers = RayLauncher(ScorerActor, (config, scorer_model(speed * SCORED_PER_S)), plan)
        rewriters = RayLauncher(RewriterReplica, (speed * WRITTEN_PER_S,), plan)
        return _row("ray", load, asyncio.run(_run(load, scorers, rewriters, ray.put)))
    finally:
        ray.shutdown()


async def _run(
    load: Load,
    scorers: Launcher,
    rewriters: Launcher,
    share: Callable[[Examples], object],
    *,
    sequential: bool = False,
) -> _Course:
    ledger = Ledger()
    scoring = _pool("scorer", scorers, load.replicas, 1, ledger)
    writing = _pool("rewriter", rewriters, load.rewriters, REWRITER_BATCH, ledger)
    info = await scoring.start()
    scorer = ScorerPool(scoring, info, CHUNK, share=share)
    rewriter = RewriterPool(writing, await writing.start())
    await _all_ready(scoring, load.replicas)
    await _all_ready(writing, load.rewriters)
    remembering = RememberingScorer(scorer, info, ScoreMemory())
    tasks = bbh_shaped(load.tasks)

    async def search(task: Task) -> None:
        TASK.set(task.name)
        await search_task(search_setup(task, load.rounds, remembering, rewriter, ledger.observe))

    loop = asyncio.get_running_loop()
    gc.collect()
    before, began, processor = scoring.stats(), loop.time(), time.process_time()
    if sequential:
        for task in tasks:
            await asyncio.create_task(search(task))
    else:
        await gather_or_cancel(map(search, tasks))
    after = scoring.stats()
    course = _Course(
        ledger=ledger,
        makespan=loop.time() - began,
        processor=time.process_time() - processor,
        idle=1 - (after.busy_seconds - before.busy_seconds) / (after.ready_seconds - before.ready_seconds),
    )
    await scorer.close()
    await rewriter.close()
    return course


def _pool(role: str, launcher: Launcher, count: int, slots: int, ledger: Ledger) -> RecordedPool:
    pool = RecordedPool(PoolSpec(role, launcher, Bounds(count, count, 60.0), slots))
    pool.ledger = ledger
    return pool


async def _all_ready(pool: RecordedPool, count: int) -> None:
    while pool.stats().states.get("ready", 0) < count:  # noqa: ASYNC110 - a state that is polled
        await asyncio.sleep(0.1)


def _row(mode: str, load: Load, course: _Course) -> Row:
    names: Sequence[str] = [task.name for task in bbh_shaped(load.tasks)]
    places = {"scorer": load.replicas, "rewriter": load.rewriters * REWRITER_BATCH}
    bound = course.ledger.lower_bound(places, names)
    return Row(
        mode=mode,
        tasks=load.tasks,
        replicas=load.replicas,
        makespan_s=round(course.makespan, 3),
        lower_bound_s=round(bound, 3),
        ratio=round(course.makespan / bound, 4),
        idle_share=round(course.idle, 4),
        driver_ms_per_unit=round(1000 * course.processor / course.ledger.units, 4),
        driver_rss_mb=round(psutil.Process().memory_info().rss / 1e6, 1),
        units=course.ledger.units,
        rounds=load.rounds,
    )
