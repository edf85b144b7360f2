"""What an evaluation measures: which instructions of which tasks, with which models, shots and repetitions.

Invariants: demonstrations are never test examples; a run is tested on the part that its search never saw,
and data that changed since are refused; what no chance enters into is measured once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from pmpo_ray.config.engines import ReplicaConfig, RewriterConfig, ScorerConfig
from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import ConfigError, DataError, RunFolderError
from pmpo_ray.evaluation.conditions import START
from pmpo_ray.evaluation.instructions import NamedInstruction, baselines, of_run, own_instructions
from pmpo_ray.evaluation.evaluators import method_for
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.store import RunStore, data_hash
from pmpo_ray.tasks.corruptions import shuffled
from pmpo_ray.types import Condition, Example, Method

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """A task with everything that is to be measured on it."""

    job: PreparedTask
    method: Method
    instructions: tuple[NamedInstruction, ...]


def plan_file(config: RunConfig, job: PreparedTask) -> TaskPlan:
    """What to measure of a configuration: its start instruction beside the others it names. Raises
    ConfigError or DataError for what cannot be measured."""
    start = NamedInstruction(START, job.task.instruction, free=True)
    return TaskPlan(job, method_for(job.task, config.evaluation), (start, *_others(config, job)))


def plan_run(config: RunConfig, job: PreparedTask, store: RunStore) -> TaskPlan | None:
    """The same of a run, with the best instruction; None for a task without any finished round. Raises
    RunFolderError where its data have changed."""
    others, task = _others(config, job), job.task
    records = store.read_rounds(task.name)
    if not records:
        _log.warning("task %s has no finished round and is left out", task.name)
        return None
    manifest = store.read_manifest()
    kept = manifest.data.get(task.name) if manifest else None
    if kept not in (None, data_hash(task.examples)):
        raise RunFolderError(
            f"task {task.name}: its data are not those that the run in {store.location} was made with, so "
            "its test part may hold what was trained on; bring them back"
        )
    result = store.read_task_result(task.name)
    own = of_run(
        records,
        start=records[0].candidates[0].candidate.text,
        best=result.best if result else records[-1].scored_survivors[0].candidate.text,
        every_candidate=config.evaluation.candidates == "all",
    )
    return TaskPlan(job, method_for(task, config.evaluation), (*own, *others))


def _others(config: RunConfig, job: PreparedTask) -> list[NamedInstruction]:
    settings, task = config.evaluation, job.task
    if not job.split.test:
        raise DataError(f"task {task.name!r}: no examples are left for a test part; lower split.train_max")
    there = len(job.split.shots) + len(job.split.train)
    most = max(settings.shots or (0,))
    if most > there:
        raise ConfigError(
            f"evaluation.shots: {most} are asked for, but task {task.name!r} has {there} examples outside "
            "its test part; lower it, or raise split.train_max"
        )
    return [*baselines(settings.baselines, task), *own_instructions(settings.instructions, task.name)]


def models_of(config: RunConfig) -> tuple[str, ...]:
    """The models that are evaluated: those named, else the one that was optimised for."""
    return config.evaluation.models or (config.scorer_model,)


def conditions_of(config: RunConfig, plan: TaskPlan, model: str) -> Iterator[Condition]:
    """Everything that is measured on a task with one model. What is chosen without shots, or written greedily
    without them, comes out alike every time, and is measured once whatever `evaluation.seeds` says."""
    settings = config.evaluation
    for shots in dict.fromkeys(settings.shots or (len(plan.job.split.shots),)):
        by_chance = shots > 0 or (plan.method != "likelihood" and settings.temperature > 0)
        for named in plan.instructions:
            for repetition in range(settings.seeds if by_chance else 1):
                yield Condition(
                    task=plan.job.task.name,
                    model=model,
                    name=named.name,
                    instruction=named.instruction,
                    shots=shots,
                    repetition=repetition,
                    method=plan.method,
                    train_loss=named.train_loss,
                )


def shots_of(job: PreparedTask, count: int, repetition: int, seed: int) -> tuple[Example, ...]:
    """`count` demonstrations: the run's own first, then training examples; in further repetitions others,
    drawn from all of these."""
    own, train = job.split.shots, job.split.train
    rng = Random(f"shots:{seed}:{job.task.name}:{repetition}")
    if repetition:
        return tuple(shuffled((*own, *train), rng)[:count])
    return (*own, *shuffled(train, rng))[:count]


def engines_for(
    config: RunConfig, model: str, methods: set[Method]
) -> tuple[ScorerConfig | None, RewriterConfig | None]:
    """How `model` is hosted: as the role of the run whose model it is, else as its scorer. What both chooses
    and writes is one pool in both roles, unless it is served elsewhere."""
    same = model == config.scorer_model
    scorer = config.scorer.model_copy(
        update={"model": model, "role": "scorer", "revision": config.scorer.revision if same else None}
    )
    writes = config.scorer.role != "both" and model == config.rewriter_model
    source: ReplicaConfig = config.rewriter if writes else scorer
    hosted = {name: getattr(source, name) for name in ReplicaConfig.model_fields}
    rewriter = config.rewriter.model_copy(update=hosted | {"model": model})
    if methods == {"likelihood"}:
        return scorer, None
    if "likelihood" not in methods:
        return None, rewriter
    if not (scorer.serves_both_roles and rewriter.serves_both_roles):
        return scorer, rewriter
    return scorer.model_copy(update={"role": "both"}), rewriter
