"""A task made ready: loaded, parted, with its objective.

Invariant: whatever can be known to be wrong with a task without a model is found here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pmpo_ray.config import RunConfig, SearchConfig
from pmpo_ray.errors import DataError
from pmpo_ray.evaluation.examining import method_for
from pmpo_ray.objectives import Objective, check_objective, make_objective, resolve_auto
from pmpo_ray.tasks import load_task, split_task
from pmpo_ray.types import Split, Task


@dataclass(frozen=True, slots=True)
class Job:
    """A task that is ready to be searched, or evaluated, and how it is searched."""

    task: Task
    split: Split
    objective: Objective
    search: SearchConfig


def job_names(config: RunConfig) -> list[str]:
    """What the jobs of a configuration are called, in their order: as their tasks, or TASK.NAME for each
    entry of the grid."""
    return list(job_searches(config))


def job_searches(config: RunConfig) -> dict[str, SearchConfig]:
    """How each job of a configuration is searched, by its name."""
    return {
        _name(task.name, variant): search
        for task in config.tasks
        for variant, search in config.searches().items()
    }


def prepare_all(config: RunConfig) -> list[Job]:
    """Every job of a configuration. Raises DataError or ConfigError for what cannot be done."""
    jobs = []
    for settings in config.tasks:
        task = load_task(settings, config.data_dir, config.seed)
        split = split_task(task, config.split, config.seed)
        if config.evaluation.enabled:
            method_for(task, config.evaluation)
        for variant, search in config.searches().items():
            objective = _objective(task, split, search)
            # Of one task all variants see the same parts.
            jobs.append(Job(replace(task, name=_name(task.name, variant)), split, objective, search))
    return jobs


def _name(task: str, variant: str) -> str:
    return f"{task}.{variant}" if variant else task


def _objective(task: Task, split: Split, search: SearchConfig) -> Objective:
    name = resolve_auto(split.train) if search.objective == "auto" else search.objective
    objective = make_objective(name, beta=search.beta, per_token=search.per_token)
    try:
        check_objective(objective, (*split.train, *split.validation))
    except DataError as error:
        raise DataError(f"task {task.name}: {error}") from None
    return objective
