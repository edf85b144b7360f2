"""Run folders for tests of what reads them: real searches over the simulated engine, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.in_process import InProcessGenerator, InProcessScorer
from pmpo_ray.config.loading import config_from_mapping, dump_config
from pmpo_ray.config.run import RunConfig
from pmpo_ray.engines.simulated.engine import SimulatedScorer
from pmpo_ray.evaluation.labels import labels_of
from pmpo_ray.evaluation.statistics import wilson_interval
from pmpo_ray.outcomes import Condition, ConditionResult, Outcome, ReplicaCount, Shot, TaskResult
from pmpo_ray.prepared_task import PreparedTask, prepare_tasks
from pmpo_ray.search.loop import search_task
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.store import ClusterInfo, Manifest, PoolUse, RunStore, data_hash, installed_versions
from pmpo_ray.types import RoundRecord

STARTED = 1_790_000_000.0
ENGINE = {"engine": "simulated", "model": "simulated"}


REWRITING: Mapping[str, object] = {
    "operators": ["rewrite"],
    "demonstrations": 0,
    "bandit": False,
    "racing": None,
    "calibrate": False,
}
"""A search that rewrites alone and scores every candidate on every example, so that tests can count."""


def simulated_config(*, search: Mapping[str, object] | None = None, **settings: object) -> RunConfig:
    """A configuration over the simulated engine: the ticket task for three rounds that rewrite alone, without
    a validation part, where the arguments say nothing else."""
    found = {**REWRITING, **({"rounds": 3} if search is None else search)}
    defaults = {"tasks": ["tickets"], "split": {"validation": 0}, "scorer": ENGINE, "rewriter": ENGINE}
    return config_from_mapping({**defaults, "search": found, **settings}, "test")


def write_run(folder: Path, *, evaluated: bool = True, **settings: object) -> RunStore:
    """A finished run in `folder`, as `pmpo optimize` would leave it."""
    config = simulated_config(**settings)
    store = RunStore.create(str(folder), dump_config(config))
    prepared_tasks = prepare_tasks(config)
    # In a new thread: the caller may be inside an event loop, as tests in a browser are.
    with ThreadPoolExecutor(1) as thread:
        results = tuple(
            thread.map(lambda prepared: asyncio.run(_searched(store, config, prepared)), prepared_tasks)
        )
    store.write_summary(results)
    engine = SimulatedScorer("simulated").info()
    store.write_manifest(
        Manifest(
            versions=installed_versions(),
            scorer=engine,
            rewriter=engine,
            data={prepared.task.name: data_hash(prepared.task.examples) for prepared in prepared_tasks},
            seed=config.seed,
            cluster=ClusterInfo("local", 1, 2.0, 0.0),
            started="2026-09-21T14:13:20+00:00",
            ended="2026-09-21T14:23:20+00:00",
            tokens_scored=sum(result.tokens_scored for result in results),
            tokens_prompted=sum(result.tokens_prompted for result in results),
            tokens_generated=sum(result.tokens_generated for result in results),
            seconds=600.0,
            pools={
                "scorer": PoolUse(1000, 3, 1, 900_000, 1800.0, 2400.0),
                "rewriter": PoolUse(200, 0, 0, 50_000, 500.0, 1200.0),
            },
        )
    )
    store.write_replicas(
        1,
        [
            ReplicaCount(STARTED, "scorer", 0, 1),
            ReplicaCount(STARTED, "rewriter", 0, 1),
            ReplicaCount(STARTED + 30, "scorer", 1, 3),
            ReplicaCount(STARTED + 40, "rewriter", 1, 0),
            ReplicaCount(STARTED + 90, "scorer", 4, 0),
            ReplicaCount(STARTED + 300, "scorer", 3, 0),
            ReplicaCount(STARTED + 600, "scorer", 0, 0),
            ReplicaCount(STARTED + 600, "rewriter", 0, 0),
        ],
    )
    if evaluated:
        store.write_evaluation(
            [
                one
                for prepared, result in zip(prepared_tasks, results, strict=True)
                for one in _condition_results(prepared, result, store)
            ]
        )
    return store


async def _searched(store: RunStore, config: RunConfig, prepared: PreparedTask) -> TaskResult:
    name = prepared.task.name
    store.write_training(name, prepared.split.train)

    async def keep(record: RoundRecord, rounds: Sequence[RoundRecord]) -> None:
        store.write_round(record)
        store.write_best(name, rounds)

    ticks = iter(range(1_000_000))
    setup = SearchSetup(
        task=prepared.task,
        split=prepared.split,
        objective=prepared.objective,
        style="long",
        settings=prepared.search,
        sampling=config.rewriter,
        seed=config.seed,
        scorer=InProcessScorer(),
        rewriter=InProcessGenerator(),
        keep=keep,
        observer=lambda _: None,
        clock=lambda: float(next(ticks)),
        proposers=prepared.proposers,
    )
    outcome = await search_task(setup)
    shots = prepared.split.trained(outcome.best.candidate.shots)
    result = TaskResult(
        task=name,
        rounds=len(outcome.records) - 1,
        stopped=outcome.stopped,
        start=outcome.start.candidate.text,
        best=outcome.best.candidate.text,
        loss_before=outcome.start.loss,
        loss_after=outcome.best.loss,
        accuracy_before=wilson_interval(60, 200),
        accuracy_after=wilson_interval(75, 200),
        tokens_scored=sum(record.tokens_scored for record in outcome.records),
        tokens_prompted=sum(record.tokens_prompted for record in outcome.records),
        tokens_generated=sum(record.tokens_generated for record in outcome.records),
        seconds=sum(record.seconds for record in outcome.records),
        p_value=0.012,
        shots=tuple(Shot(shot.input, shot.target) for shot in shots),
        prompt_before=70,
        prompt_after=90,
    )
    store.write_task_result(name, result)
    return result


def _condition_results(prepared: PreparedTask, result: TaskResult, store: RunStore) -> list[ConditionResult]:
    """Outcomes whose accuracy rises from the description over the start to the best."""
    texts = {"start": result.start, "best": result.best, "description": prepared.task.description}
    best = store.read_rounds(prepared.task.name)[-1].scored_survivors[0].candidate
    own = {"best": best.shots}
    right = {"start": 3, "best": 5, "description": 2}
    return [
        ConditionResult(
            Condition(
                prepared.task.name, "simulated", name, text, 0, 0, "likelihood", own_shots=own.get(name, ())
            ),
            tuple(
                Outcome(example.id, number % 8 < right[name], example.target, loss=1.0 - 0.1 * right[name])
                for number, example in enumerate(prepared.split.test)
            ),
            labels_of(prepared.task, prepared.split.test),
        )
        for name, text in texts.items()
    ]
