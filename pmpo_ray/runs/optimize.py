"""The composition root: from a configuration to a finished run folder.

Invariants:
- Everything that can be known to be wrong without a model is found before Ray starts.
- Every finished round of every task is in the run folder before the next one begins; the same command
  goes on from there, and finds the scores of the unfinished round there too.
- What was started here is ended here, whatever happens: actors always, Ray where this process started it.
- One driver writes a run folder: this one, from before it reads it until its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import uuid4

from pmpo_ray.callbacks.dispatch import Callback, RunStart, dispatching
from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import DataError, EngineError
from pmpo_ray.evaluation.evaluators import GenerationEvaluator, LikelihoodEvaluator, Evaluator, method_for
from pmpo_ray.evaluation.grading import RuleGrader
from pmpo_ray.evaluation.statistics import compare, wilson_interval
from pmpo_ray.prepared_task import PreparedTask, given_tasks, prepare_tasks
from pmpo_ray.runs.event_loop import ending_on_sigterm, run_to_end
from pmpo_ray.search.objectives import batch_loss
from pmpo_ray.runs.run_folder import fresh_run_dir, keep_given, open_store, other_data
from pmpo_ray.runs.placement import place
from pmpo_ray.protocols import Observer, ScoreClient
from pmpo_ray.runs.replica_log import logging_replicas
from pmpo_ray.result import RunResult
from pmpo_ray.search.meta_prompts import choose_style
from pmpo_ray.runs.score_memory import SCORES_KEPT, RememberingScorer, ScoreMemory, saving
from pmpo_ray.search.loop import SearchOutcome, search_task
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.store import (
    ClusterInfo,
    Manifest,
    PoolUse,
    RunStore,
    data_hash,
    hold,
    installed_versions,
)
from pmpo_ray.callbacks.trackers import trackers
from pmpo_ray.types import (
    Progress,
    RoundRecord,
    ScoredCandidate,
    ScoreRequest,
    Task,
    TaskFailure,
    TaskResult,
)

if TYPE_CHECKING:
    from pmpo_ray.actors.clients import RewriterPool, ScorerPool
    from pmpo_ray.actors.pools import Pools
    from pmpo_ray.actors.resources import Plan
    from pmpo_ray.actors.stats import PoolStats

_log = logging.getLogger(__name__)


def run_optimization(
    config: RunConfig,
    *,
    observer: Observer,
    given: Mapping[str, Task] = MappingProxyType({}),
    callbacks: Sequence[Callback] = (),
) -> RunResult:
    """Optimise every task of `config`, and continue the run in its `run_dir`, if any. `given` are
    the tasks, by name, whose data were given in Python; the run folder keeps them. `callbacks` are told of
    the run after the trackers of the configuration.

    Raises a PmpoError for everything a user can mend, also where every task failed, and KeyboardInterrupt
    after a clean end on Ctrl-C.
    """
    from pmpo_ray.actors.cluster import LOCAL, connected, connected_cluster

    location = config.run_dir or fresh_run_dir(config)
    given = given_tasks(config, location, given)
    jobs = prepare_tasks(config, given)
    followers = (*trackers(config.tracking, location), *callbacks)
    with hold(location) as lease:
        store = open_store(config, location, lease)
        keep_given(config, store, given)
        memory = ScoreMemory(store.join_scores(SCORES_KEPT))
        for job in jobs:
            observer(Progress(job.task.name, "waiting", 0, job.search.rounds))
        # Ray has a handler for SIGTERM of its own, from when it is connected.
        with connected(config.ray) as address, ending_on_sigterm():
            own_machine = address == LOCAL
            if not own_machine and store.is_local:
                _log.warning(
                    "the run folder %s is on this machine's disk and lost with it; on a cluster whose head "
                    "may go, name one on s3:// or gs:// with --run-dir",
                    store.location,
                )
            there = connected_cluster()
            cluster = ClusterInfo(address, len(there.nodes), there.cpus, there.gpus)
            placed = place(config, there, own_machine=own_machine)
            try:
                with dispatching(followers) as followed:
                    run = _Run(config, store, memory, jobs, observer, followed, cluster, placed)
                    finished = False
                    try:
                        run_to_end(run.run())
                        finished = True
                    finally:
                        followed.on_run_end(run.result, finished)
            except KeyboardInterrupt:
                # Whoever tells the user about it has to say where to go on.
                raise KeyboardInterrupt(store.location) from None
    return run.result


class _Run:
    """One run over started pools."""

    def __init__(
        self,
        config: RunConfig,
        store: RunStore,
        memory: ScoreMemory,
        jobs: Sequence[PreparedTask],
        observer: Observer,
        followed: Callback,
        cluster: ClusterInfo,
        placed: Plan,
    ) -> None:
        from pmpo_ray.actors.metrics import Metrics

        self._config = config
        self._store = store
        self._memory = memory
        self._jobs = jobs
        self._observer = observer
        self._followed = followed
        self._cluster = cluster
        self._plan = placed
        self._results: dict[str, TaskResult] = {}
        self._metrics = Metrics()
        self._seen: dict[str, Progress] = {}
        self._failures: list[TaskFailure] = []

    @property
    def result(self) -> RunResult:
        """What the run has come to so far."""
        names = [job.task.name for job in self._jobs if job.task.name in self._results]
        done = tuple(self._results[name] for name in names)
        return RunResult(done, self._store.location, tuple(self._failures))

    async def run(self) -> None:
        from pmpo_ray.actors.pools import running_pools

        began = time.monotonic()
        manifest = self._manifest()
        async with running_pools(self._config, self._plan) as pools:
            scorer, rewriter = pools.scorer, pools.rewriter
            manifest = replace(manifest, scorer=scorer.info, rewriter=rewriter.info, cluster=self._cluster)
            await asyncio.to_thread(self._store.write_manifest, manifest)
            if scorer.info.fallback:
                _log.warning("slow scorer: %s", scorer.info.fallback)
            self._followed.on_run_start(await asyncio.to_thread(self._start, manifest.id, scorer, rewriter))
            driver = await asyncio.to_thread(self._store.next_replicas)
            # Within the pools: the last scores are saved whatever ends the tasks, then the actors end.
            async with (
                saving(self._memory, self._store.write_scores),
                self._published(pools),
                logging_replicas(pools.stats, partial(self._store.write_replicas, driver), time.time),
            ):
                await self._all_tasks(RememberingScorer(scorer, scorer.info, self._memory), rewriter)
            used = {name: _use(stats()) for name, stats in pools.stats.items()}
        results = self.result.tasks
        finished = replace(
            manifest,
            ended=None if self._failures else _now(),
            tokens_scored=sum(result.tokens_scored for result in results),
            tokens_generated=sum(result.tokens_generated for result in results),
            seconds=manifest.seconds + time.monotonic() - began,
            pools=used,
        )
        await asyncio.to_thread(self._store.write_summary, results)
        await asyncio.to_thread(self._store.write_manifest, finished)

    def _manifest(self) -> Manifest:
        earlier = self._store.read_manifest()
        data = {job.task.name: data_hash(job.task.examples) for job in self._jobs}
        for name, kept in (earlier.data if earlier else {}).items():
            if data.get(name, kept) != kept and self._store.count_rounds(name):
                raise other_data(name, self._store.location)
        return Manifest(
            versions=installed_versions(),
            scorer=None,
            rewriter=None,
            data=data,
            seed=self._config.seed,
            cluster=None,
            started=earlier.started if earlier else _now(),
            seconds=earlier.seconds if earlier else 0.0,
            id=earlier.id if earlier and earlier.id else uuid4().hex,
        )

    def _start(self, run_id: str, scorer: ScorerPool, rewriter: RewriterPool) -> RunStart:
        names = tuple(job.task.name for job in self._jobs)
        stored = {name: self._store.count_rounds(name) for name in names}
        resumed = {name: count for name, count in stored.items() if count}
        location = self._store.location
        return RunStart(run_id, location, self._config, names, scorer.info, rewriter.info, resumed)

    @asynccontextmanager
    async def _published(self, pools: Pools) -> AsyncIterator[None]:
        """The run's metrics are shown through Ray meanwhile, and once more at the end."""
        from pmpo_ray.actors.metrics import publish

        publishing = asyncio.create_task(publish(self._metrics, pools.stats))
        try:
            yield
        finally:
            publishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await publishing

    async def _all_tasks(self, scorer: ScoreClient, rewriter: RewriterPool) -> None:
        """Search all tasks at once. What lies in one task's texts fails that task alone, unless no task is
        left; any other error ends all, whose finished rounds are kept."""
        tasks = [asyncio.create_task(self._attempt(job, scorer, rewriter)) for job in self._jobs]
        try:
            errors = [error for error in await asyncio.gather(*tasks) if error is not None]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if len(errors) == len(self._jobs):
            raise errors[0]

    async def _attempt(
        self, job: PreparedTask, scorer: ScoreClient, rewriter: RewriterPool
    ) -> EngineError | DataError | None:
        """Search one task; the error that it failed with, if it did."""
        try:
            await self._one_task(job, scorer, rewriter)
        except (EngineError, DataError) as error:
            name = job.task.name
            failure = TaskFailure(name, str(error))
            self._failures.append(failure)
            self._followed.on_task_failed(failure)
            last = self._seen.get(name, Progress(name, "waiting", 0, job.search.rounds))
            self._observe(replace(last, state="failed", note=str(error)))
            return error
        return None

    def _observe(self, progress: Progress) -> None:
        self._seen[progress.task] = progress
        self._metrics.observe_task(progress)
        self._observer(progress)

    async def _one_task(self, job: PreparedTask, scorer: ScoreClient, rewriter: RewriterPool) -> None:
        name = job.task.name
        if not await asyncio.to_thread(self._store.count_rounds, name):
            await asyncio.to_thread(self._store.write_training, name, job.split.train)

        async def keep(record: RoundRecord, rounds: Sequence[RoundRecord]) -> None:
            await asyncio.to_thread(self._store.write_round, record)
            await asyncio.to_thread(self._store.write_best, name, rounds)
            self._followed.on_round(record)

        setup = SearchSetup(
            task=job.task,
            split=job.split,
            objective=job.objective,
            style=choose_style(job.search.meta_prompt, rewriter.info.parameters),
            settings=job.search,
            sampling=self._config.rewriter,
            seed=self._config.seed,
            scorer=job.scoring(scorer, job.search.calibrate),
            rewriter=rewriter,
            keep=keep,
            observer=self._observe,
            clock=time.monotonic,
            proposers=job.proposers,
        )
        # Without a reference to the list here: the search drops the scores that it does not need.
        outcome = await search_task(setup, await asyncio.to_thread(self._store.read_rounds, name))
        picked, tokens = await self._picked(job, outcome, scorer)
        if picked != outcome.best:
            await asyncio.to_thread(self._store.write_best, name, outcome.records, picked.candidate.id)
        result = _result(name, outcome, picked, tokens)
        earlier = await asyncio.to_thread(self._store.read_task_result, name)
        if earlier is not None and _unevaluated(earlier) == result:
            result = earlier
        elif self._config.evaluation.enabled:
            losses = tuple(record.scored_survivors[0].loss for record in outcome.records)
            result = await self._evaluated(job, result, losses, scorer, rewriter)
        await asyncio.to_thread(self._store.write_task_result, name, result)
        self._results[name] = result
        self._followed.on_task_end(result)

    async def _picked(
        self, job: PreparedTask, outcome: SearchOutcome, scorer: ScoreClient
    ) -> tuple[ScoredCandidate, int]:
        """The instruction that the search came to, and the tokens scored to pick it: that of the last round,
        or, of the best of all rounds, the one with the lowest loss on the validation part."""
        examples = job.split.validation
        if not examples:
            return outcome.best, 0
        leaders = {lead.candidate.id: lead for record in outcome.records for lead in record.scored_survivors[:1]}
        scorer = job.scoring(scorer, job.search.calibrate)
        requests = [
            ScoreRequest(lead.candidate.text, examples, job.split.shots) for lead in leaders.values()
        ]
        scores = await gather_or_cancel(map(scorer.score, requests))
        weights = [example.weight for example in examples]
        losses = [batch_loss(list(map(job.objective, found)), weights) for found in scores]
        best = min(range(len(losses)), key=losses.__getitem__)
        return list(leaders.values())[best], sum(score.tokens for found in scores for score in found)

    async def _evaluated(
        self,
        job: PreparedTask,
        result: TaskResult,
        losses: tuple[float, ...],
        scorer: ScoreClient,
        rewriter: RewriterPool,
    ) -> TaskResult:
        """`result` with the accuracies of its first and its best instruction on the test part."""
        progress = Progress(
            result.task,
            "evaluating",
            result.rounds,
            job.search.rounds,
            losses,
            result.tokens_scored,
            result.tokens_generated,
        )
        self._observe(progress)
        examples = job.split.test[: self._config.evaluation.limit]
        evaluator = self._evaluator(job, scorer, rewriter)
        if evaluator is not None and examples:
            before = await evaluator.evaluate(result.start, examples, job.split.shots)
            after = before
            if result.best != result.start:
                after = await evaluator.evaluate(result.best, examples, job.split.shots)
            values = [[float(outcome.right) for outcome in outcomes] for outcomes in (before, after)]
            result = replace(
                result,
                accuracy_before=wilson_interval(round(sum(values[0])), len(examples)),
                accuracy_after=wilson_interval(round(sum(values[1])), len(examples)),
                p_value=compare(*values).p_value,
            )
        self._observe(replace(progress, state="done"))
        return result

    def _evaluator(self, job: PreparedTask, scorer: ScoreClient, rewriter: RewriterPool) -> Evaluator | None:
        """What measures the scored model; None where answers would be written by another one, or go to a
        judge, which is for `pmpo evaluate` to ask."""
        settings = self._config.evaluation
        method = method_for(job.task, settings)
        if method == "likelihood":
            return LikelihoodEvaluator(job.scoring(scorer, job.calibrates(settings)), job.objective)
        if method == "judged" or self._config.scorer_model != self._config.rewriter_model:
            return None
        return GenerationEvaluator(job.task, settings, rewriter, RuleGrader(job.task), self._config.seed)


def _use(stats: PoolStats) -> PoolUse:
    return PoolUse(
        stats.done, stats.retries, stats.lost, stats.tokens, stats.busy_seconds, stats.ready_seconds
    )


def _unevaluated(result: TaskResult) -> TaskResult:
    return replace(result, accuracy_before=None, accuracy_after=None, p_value=None)


def _result(name: str, outcome: SearchOutcome, best: ScoredCandidate, tokens: int) -> TaskResult:
    """What a search came to with `best`, for which `tokens` were scored beyond the rounds."""
    records = outcome.records
    return TaskResult(
        task=name,
        rounds=len(records) - 1,
        stopped=outcome.stopped,
        start=outcome.start.candidate.text,
        best=best.candidate.text,
        loss_before=outcome.start.loss,
        loss_after=best.loss,
        accuracy_before=None,
        accuracy_after=None,
        tokens_scored=tokens + sum(record.tokens_scored for record in records),
        tokens_generated=sum(record.tokens_generated for record in records),
        seconds=sum(record.seconds for record in records),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
