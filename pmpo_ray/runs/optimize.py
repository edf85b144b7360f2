"""The composition root of an optimisation: from a configuration to a finished run folder.

Invariants:
- Every error that can be found without a model is found before Ray starts.
- Every finished round of every task is in the run folder before the next one begins; the same command
  continues from there, and also finds the scores of the unfinished round there.
- Everything that is started here is ended here, whatever happens: actors always, Ray if this process started
  it.
- Only one driver writes a run folder: this one, from before it reads the folder until the end of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from pmpo_ray.callbacks.dispatch import Callback, RunStart, dispatching
from pmpo_ray.callbacks.trackers import trackers
from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.run import RunConfig
from pmpo_ray.counting import counting
from pmpo_ray.errors import DataError, EngineError
from pmpo_ray.outcomes import Progress, TaskFailure, TaskResult
from pmpo_ray.prepared_task import PreparedTask, prepare_tasks, tasks_from_python
from pmpo_ray.protocols import Observer
from pmpo_ray.result import RunResult
from pmpo_ray.runs.announcements import announce_engines, announce_operators
from pmpo_ray.runs.event_loop import run_to_end
from pmpo_ray.runs.fitting import Ruler
from pmpo_ray.runs.optimize_task import optimize_task
from pmpo_ray.runs.placement import planned_cluster
from pmpo_ray.runs.replica_log import logging_replicas
from pmpo_ray.runs.run_context import RunContext
from pmpo_ray.runs.run_folder import (
    keep_function_tasks,
    keep_python_tasks,
    naming_folder,
    open_store,
    run_location,
)
from pmpo_ray.runs.run_manifest import (
    check_encoding,
    finished_manifest,
    new_manifest,
    start_day,
)
from pmpo_ray.runs.score_memory import SCORES_KEPT, RememberingScorer, ScoreMemory, saving
from pmpo_ray.runs.task_log import log_tasks
from pmpo_ray.store import ClusterInfo, RunStore, hold
from pmpo_ray.types import Task

if TYPE_CHECKING:
    from pmpo_ray.actors.clients import RewriterPool, ScorerPool
    from pmpo_ray.actors.metrics import Metrics
    from pmpo_ray.actors.pools import Pools
    from pmpo_ray.actors.resources import Plan

_log = logging.getLogger(__name__)


def run_optimization(
    config: RunConfig,
    *,
    observer: Observer,
    python_data: Mapping[str, Task] = MappingProxyType({}),
    callbacks: Sequence[Callback] = (),
) -> RunResult:
    """Optimise every task of `config`, and continue the run in its `run_dir`, if any.

    `python_data` maps names to the tasks whose data were passed in Python; the run folder keeps them.
    `callbacks` are called after the trackers of the configuration.

    Raises a PmpoError for everything that a user can fix, including that every task failed, and Interrupted,
    a KeyboardInterrupt, after a clean end on Ctrl-C, SIGTERM or SIGHUP.
    """
    with run_location(config) as location, naming_folder(location):
        return _run_in(location, config, observer, python_data, callbacks)


def _run_in(
    location: str,
    config: RunConfig,
    observer: Observer,
    python_data: Mapping[str, Task],
    callbacks: Sequence[Callback],
) -> RunResult:
    """The result of the run in the folder `location`."""
    python_tasks = tasks_from_python(config, location, python_data)
    prepared_tasks = prepare_tasks(config, python_tasks)
    all_callbacks = (*trackers(config.tracking, location), *callbacks)
    with hold(location) as lease:
        store = open_store(config, location, lease)
        keep_python_tasks(config, store, python_tasks)
        keep_function_tasks(config, store, prepared_tasks)
        log_tasks(prepared_tasks)
        memory = ScoreMemory(store.join_scores(SCORES_KEPT))
        for prepared in prepared_tasks:
            observer(Progress(prepared.task.name, "waiting", 0, prepared.search.rounds))
        with (
            planned_cluster(config) as (cluster, plan),
            dispatching(all_callbacks) as callback,
        ):
            _warn_of_loss(cluster, store)
            run = _Run(config, store, memory, prepared_tasks, observer, callback, cluster, plan)
            finished = False
            try:
                run_to_end(run.run())
                finished = True
            finally:
                callback.on_run_end(run.result, finished)
    return run.result


def _warn_of_loss(cluster: ClusterInfo, store: RunStore) -> None:
    """Warn of a run folder on this machine's disk if the replicas run on a cluster."""
    from pmpo_ray.actors.cluster import LOCAL

    if cluster.address != LOCAL and store.is_local:
        _log.warning(
            "the run folder %s is on this machine's disk and will be lost with it; if the head of the "
            "cluster may be replaced, use a folder on s3:// or gs:// with --run-dir",
            store.location,
        )


@dataclass(slots=True)
class _Run:
    """One run on a connected cluster."""

    config: RunConfig
    store: RunStore
    memory: ScoreMemory
    prepared_tasks: Sequence[PreparedTask]
    observer: Observer
    callback: Callback
    cluster: ClusterInfo
    plan: Plan
    _metrics: Metrics = field(init=False)
    _results: dict[str, TaskResult] = field(init=False, default_factory=dict)
    _failures: list[TaskFailure] = field(init=False, default_factory=list)
    _progress: dict[str, Progress] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        from pmpo_ray.actors.metrics import Metrics

        self._metrics = Metrics()

    @property
    def result(self) -> RunResult:
        """The results and failures so far, results in the order of the configuration."""
        names = [prepared.task.name for prepared in self.prepared_tasks]
        done = tuple(self._results[name] for name in names if name in self._results)
        return RunResult(done, self.store.location, tuple(self._failures))

    async def run(self) -> None:
        """Start the pools, search all tasks, and write the summary."""
        from pmpo_ray.actors.cluster import watched_ray
        from pmpo_ray.actors.pools import running_pools

        started = time.monotonic()
        manifest = new_manifest(self.config, self.prepared_tasks, self.store)
        plan = self.plan.on_day(start_day(manifest))
        async with watched_ray(), running_pools(self.config, plan) as pools:
            scorer, rewriter = pools.scorer, pools.rewriter
            await asyncio.to_thread(check_encoding, self.store, scorer.info)
            manifest = replace(manifest, scorer=scorer.info, rewriter=rewriter.info, cluster=self.cluster)
            await asyncio.to_thread(self.store.write_manifest, manifest)
            announce_engines(scorer.info, rewriter.info)
            announce_operators(self.prepared_tasks, rewriter.info)
            self.callback.on_run_start(await asyncio.to_thread(self._start, manifest.id, scorer, rewriter))
            driver = await asyncio.to_thread(self.store.next_replicas)
            # Inside the pools: whatever ends the tasks, the last scores are saved before the actors end.
            async with (
                saving(self.memory, self.store.write_scores),
                _publishing(self._metrics, pools),
                logging_replicas(pools.stats, partial(self.store.write_replicas, driver), time.time),
            ):
                client = RememberingScorer(scorer, scorer.info, self.memory)
                ruler = Ruler(scorer.lengths, scorer.info.context_length)
                await self._search_all(
                    RunContext(self.config, self.store, client, rewriter, rewriter.info, self._observe, ruler)
                )
            stats = {name: read() for name, read in pools.stats.items()}
        seconds = time.monotonic() - started
        await asyncio.to_thread(self.store.write_summary, self.result.tasks)
        finished = finished_manifest(manifest, self.result, stats, seconds)
        await asyncio.to_thread(self.store.write_manifest, finished)

    def _start(self, run_id: str, scorer: ScorerPool, rewriter: RewriterPool) -> RunStart:
        names = tuple(prepared.task.name for prepared in self.prepared_tasks)
        stored = {name: self.store.count_rounds(name) for name in names}
        resumed = {name: count for name, count in stored.items() if count}
        location = self.store.location
        return RunStart(run_id, location, self.config, names, scorer.info, rewriter.info, resumed)

    async def _search_all(self, context: RunContext) -> None:
        """Search all tasks at once. An error in the texts of a task fails only that task, unless all tasks
        fail; any other error ends the run, whose finished rounds are kept."""
        outcomes = await gather_or_cancel(
            self._search_or_fail(prepared, context) for prepared in self.prepared_tasks
        )
        errors = [error for error in outcomes if error is not None]
        if len(errors) == len(self.prepared_tasks):
            raise errors[0]

    async def _search_or_fail(
        self, prepared: PreparedTask, context: RunContext
    ) -> EngineError | DataError | None:
        """Search one task. Return the error if it failed."""
        name = prepared.task.name
        try:
            with counting(partial(self._count, name)):
                result = await optimize_task(context, prepared, self.callback.on_round)
        except (EngineError, DataError) as error:
            failure = TaskFailure(name, str(error))
            self._failures.append(failure)
            self.callback.on_task_failed(failure)
            last = self._progress.get(name, Progress(name, "waiting", 0, prepared.search.rounds))
            self._observe(replace(last, state="failed", note=str(error)))
            return error
        self._results[name] = result
        self.callback.on_task_end(result)
        return None

    def _count(self, task: str, done: int, asked: int) -> None:
        if task in self._progress:
            self.observer(replace(self._progress[task], done=done, asked=asked))

    def _observe(self, progress: Progress) -> None:
        self._progress[progress.task] = progress
        self._metrics.observe_task(progress)
        self.observer(progress)


@asynccontextmanager
async def _publishing(metrics: Metrics, pools: Pools) -> AsyncIterator[None]:
    """Publish the metrics of the run through Ray until the block ends, and once more at its end."""
    from pmpo_ray.actors.metrics import publish

    publishing = asyncio.create_task(publish(metrics, pools.stats))
    try:
        yield
    finally:
        publishing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await publishing
