"""The plan of an evaluation: the instructions of each task, and the models, shots and repetitions.

Invariants: demonstrations are never test examples; a run is tested on the part that its search never saw, and
data that have changed since are refused; a deterministic condition is measured once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pmpo_ray.config.engines import ReplicaConfig, RewriterConfig, ScorerConfig
from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import ConfigError, DataError, RunFolderError
from pmpo_ray.evaluation.evaluators import method_for
from pmpo_ray.evaluation.instructions import (
    NamedInstruction,
    baselines,
    configured_instructions,
    run_instructions,
    starts_of,
)
from pmpo_ray.history.run_history import best_of
from pmpo_ray.outcomes import Condition, Method
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.runs.run_folder import check_training
from pmpo_ray.store import RunStore, data_hash
from pmpo_ray.tasks.corruptions import shuffled
from pmpo_ray.types import Example

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """A task with its method and the instructions to evaluate; the first one is the first start."""

    prepared: PreparedTask
    method: Method
    instructions: tuple[NamedInstruction, ...]

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.prepared.task.name


def plan_file(config: RunConfig, prepared: PreparedTask) -> TaskPlan:
    """The plan for a task of a configuration: its start instructions and the other configured ones. Raises
    ConfigError or DataError if the task cannot be evaluated."""
    task = prepared.task
    instructions = (*starts_of(task), *_others(config, prepared))
    return TaskPlan(prepared, method_for(task, config.evaluation), instructions)


def plan_run(config: RunConfig, prepared: PreparedTask, store: RunStore) -> TaskPlan | None:
    """The plan for a task of a run, which includes its best instruction; None for a task without a finished
    round. Errors as in `plan_file`, and RunFolderError if the data of the task have changed."""
    task = prepared.task
    records = store.read_rounds(task.name)
    if not records:
        _log.warning("task %s has no finished round and is left out", task.name)
        return None
    manifest = store.read_manifest()
    kept = manifest.data.get(task.name) if manifest else None
    if kept not in (None, data_hash(task.examples)):
        raise RunFolderError(
            f"task {task.name}: its data are not those that the run in {store.location} was made with, so "
            "its test part may contain training examples; restore them"
        )
    check_training(prepared, store)
    result = store.read_task_result(task.name)
    if result is not None and result.rounds != len(records) - 1:
        # The search has gone on since, or its last round is damaged.
        result = None
    from_run = run_instructions(
        records, best_of(records, result), every_candidate=config.evaluation.candidates == "all"
    )
    others = _others(config, prepared, own=max(len(one.shots) for one in from_run))
    return TaskPlan(prepared, method_for(task, config.evaluation), (*from_run, *others))


def _others(config: RunConfig, prepared: PreparedTask, own: int = 0) -> list[NamedInstruction]:
    """The configured instructions; one of the run has `own` demonstrations."""
    settings, task, split = config.evaluation, prepared.task, prepared.split
    if not split.test:
        raise DataError(
            f"task {task.name!r}: no row is left to evaluate on; name a test file with "
            "--set tasks.N.test_path=FILE, or make a run with a lower split.train_max or split.validation"
        )
    available = len(split.shots) + len(split.train) - own
    requested = max(settings.shots or (0,))
    beside = f" beside the {own} demonstrations of an instruction" if own else ""
    if requested > available:
        raise ConfigError(
            f"evaluation.shots: {requested} requested, but task {task.name!r} has {available} examples "
            f"outside its test part{beside}; lower it, or raise split.train_max"
        )
    folder = Path(config.run_dir or ".")
    return [
        *baselines(settings.baselines, task),
        *configured_instructions(settings.instructions, task.name, folder),
    ]


def models_of(config: RunConfig) -> tuple[str, ...]:
    """The models to evaluate: the configured ones, or else the scorer's model."""
    return config.evaluation.models or (config.scorer_model,)


def conditions_of(config: RunConfig, plan: TaskPlan, model: str) -> Iterator[Condition]:
    """The conditions of a task with one model. Without shots, the likelihood method and greedy generation are
    deterministic: they are measured once, whatever the value of `evaluation.seeds`."""
    settings = config.evaluation
    for shots in dict.fromkeys(settings.shots or (len(plan.prepared.split.shots),)):
        is_random = shots > 0 or (plan.method != "likelihood" and settings.temperature > 0)
        for named in plan.instructions:
            for repetition in range(settings.seeds if is_random else 1):
                yield Condition(
                    task=plan.task,
                    model=model,
                    name=named.name,
                    instruction=named.instruction,
                    shots=shots,
                    repetition=repetition,
                    method=plan.method,
                    train_loss=named.train_loss,
                    own_shots=named.shots,
                )


def shots_of(prepared: PreparedTask, condition: Condition, seed: int) -> tuple[Example, ...]:
    """The demonstrations of a condition: those that every instruction gets, then the instruction's own.
    Repetition 0 takes the shots of the run first, then training examples; every other repetition draws from
    both."""
    split = prepared.split
    own = split.trained(condition.own_shots)
    rng = Random(f"shots:{seed}:{prepared.task.name}:{condition.repetition}")
    if condition.repetition:
        drawn = shuffled((*split.shots, *split.train), rng)
    else:
        drawn = [*split.shots, *shuffled(split.train, rng)]
    return (*[shot for shot in drawn if shot not in own][: condition.shots], *own)


def engines_for(
    config: RunConfig, model: str, methods: set[Method]
) -> tuple[ScorerConfig | None, RewriterConfig | None]:
    """The engines that host `model`, as scorer and as generator: with the settings of the run's role that
    uses this model, or else of the scorer. If both are needed, one pool serves both roles where the engine
    can do so."""
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
