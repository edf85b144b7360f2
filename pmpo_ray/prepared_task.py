"""A task made ready: loaded, parted, with its objective.

Invariant: whatever can be known to be wrong with a task without a model is found here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from pmpo_ray.config.evaluation import EvaluationConfig
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.search import SearchConfig
from pmpo_ray.errors import DataError
from pmpo_ray.evaluation.evaluators import method_for
from pmpo_ray.protocols import ScoreClient
from pmpo_ray.search.calibration import calibrated
from pmpo_ray.search.objectives import Objective, check_objective, make_objective, resolve_auto
from pmpo_ray.search.operators import REWRITE, Proposer, load_proposers
from pmpo_ray.store import RunStore
from pmpo_ray.tasks import load_task, split_task
from pmpo_ray.types import Split, Task


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """A task that is ready to be searched, or evaluated, and how it is searched."""

    task: Task
    split: Split
    objective: Objective
    search: SearchConfig
    proposers: Mapping[str, Proposer]

    def scoring(self, scorer: ScoreClient, calibrate: bool) -> ScoreClient:
        """What scores this task, with `scorer` beneath."""
        return calibrated(scorer, self.task) if calibrate else scorer

    def calibrates(self, settings: EvaluationConfig) -> bool:
        """Whether the held-out examples are evaluated with calibrated scores."""
        return self.search.calibrate if settings.calibrate is None else settings.calibrate


def given_tasks(config: RunConfig, location: str, handed: Mapping[str, Task]) -> dict[str, Task]:
    """The tasks of a configuration whose data are given in Python, by name: those `handed` over now, else
    those that the run folder at `location` keeps. Raises DataError for one that is in neither."""
    wanted = [settings for settings in config.tasks if settings.given]
    store = RunStore.open(location) if wanted and RunStore.exists(location) else None
    found: dict[str, Task] = {}
    for settings in wanted:
        name = settings.name
        task = handed.get(name) or (store.read_task(name) if store else None)
        if task is None:
            raise DataError(
                f"task {name}: its data were given in Python and {location} does not keep them; call "
                "optimize() with them, or name the run folder that does with --run-dir"
            )
        found[name] = replace(
            task,
            instruction=settings.instruction or task.instruction,
            description=settings.description or task.description,
        )
    return found


def prepare_tasks(config: RunConfig, given: Mapping[str, Task] = MappingProxyType({})) -> list[PreparedTask]:
    """Every job of a configuration; `given` are its tasks, by name, whose data were given in Python. Raises
    DataError or ConfigError for what cannot be done."""
    jobs = []
    for settings in config.tasks:
        task = given.get(settings.name) or load_task(settings, config.data_dir, config.seed)
        split = split_task(task, config.split, config.seed)
        if config.evaluation.enabled:
            method_for(task, config.evaluation)
        for variant, search in config.searches().items():
            objective = _objective(task, split, search)
            proposers = load_proposers([name for name in search.operators if name != REWRITE])
            # Of one task all variants see the same parts.
            named = replace(task, name=config.search_name(task.name, variant))
            jobs.append(PreparedTask(named, split, objective, search, proposers))
    return jobs


def _objective(task: Task, split: Split, search: SearchConfig) -> Objective:
    name = resolve_auto(split.train) if search.objective == "auto" else search.objective
    objective = make_objective(name, beta=search.beta, per_token=search.per_token)
    try:
        check_objective(objective, (*split.train, *split.validation))
    except DataError as error:
        raise DataError(f"task {task.name}: {error}") from None
    return objective
