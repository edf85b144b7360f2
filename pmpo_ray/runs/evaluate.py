"""The composition root of an evaluation: from a run folder or a configuration to evaluation.parquet.

Invariants:
- A run is evaluated on its own test part, which its search never saw: tasks, split and seed are those of the
  run, and data that have changed since are refused.
- Every measurement is kept at once, under everything that it depends on: after a stop the same command
  continues, and measures only what is missing or has changed.
- Everything that is started here is ended here; only one driver writes a run folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pmpo_ray.config.loading import dump_config, load_config
from pmpo_ray.config.overrides import Override
from pmpo_ray.config.resume import differences
from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import ConfigError, RunFolderError
from pmpo_ray.evaluation.alpaca_rows import outputs_document
from pmpo_ray.evaluation.conditions import BEST, START
from pmpo_ray.evaluation.summary import Summary, summarise
from pmpo_ray.outcomes import ConditionResult
from pmpo_ray.prepared_task import PreparedTask, prepare_tasks, tasks_from_python
from pmpo_ray.protocols import Observer
from pmpo_ray.runs.announcements import announce
from pmpo_ray.runs.evaluate_conditions import Evaluation
from pmpo_ray.runs.evaluation_plan import TaskPlan, plan_file, plan_run
from pmpo_ray.runs.event_loop import run_to_end
from pmpo_ray.runs.placement import Replica, place_roles
from pmpo_ray.runs.run_folder import naming_folder, run_location
from pmpo_ray.runs.run_manifest import start_day
from pmpo_ray.runs.task_log import log_tasks
from pmpo_ray.store import Lease, RunStore, hold, task_folder
from pmpo_ray.store.kept_config import kept_config
from pmpo_ray.thoughts import without_thoughts

if TYPE_CHECKING:
    from pmpo_ray.actors.resources import ReplicaPlan

_CHANGEABLE = ("evaluation", "scorer", "rewriter", "ray", "data_dir", "run_dir")
"""Sections of a run's configuration that an evaluation may change."""


@dataclass(frozen=True, slots=True, repr=False)
class EvaluationResult:
    """The summary and the outcomes of an evaluation, and the folder that keeps them."""

    summary: Summary
    results: tuple[ConditionResult, ...]
    run_dir: str

    def __repr__(self) -> str:
        rows = self.summary.rows
        counts = {
            "task": len({row.task for row in rows}),
            "instruction": len({row.name for row in rows}),
            "model": len({row.model for row in rows}),
        }
        parts = [f"{count} {what}{'' if count == 1 else 's'}" for what, count in counts.items()]
        accuracies = self.summary.overall[0].accuracies if rows else {}
        figures = [f"{name} {accuracies[name].value:.1%}" for name in (START, BEST) if name in accuracies]
        if figures:
            parts.append(f"{'mean ' * (counts['task'] > 1)}accuracy {', '.join(figures)}")
        return f"<EvaluationResult: {', '.join(parts)}, in {self.run_dir!r}>"


def run_evaluation(
    source: str, overrides: Sequence[Override] = (), *, observer: Observer
) -> EvaluationResult:
    """Evaluate the instructions of the run in the folder `source`, or those of a configuration file, whose
    `run_dir` keeps the result (None: a new folder).

    Raises a PmpoError for everything that a user can fix, and Interrupted, a KeyboardInterrupt, after a clean
    end on Ctrl-C, SIGTERM or SIGHUP.
    """
    is_run = not Path(source).is_file() and RunStore.exists(source)
    config = _config(source, overrides, is_run=is_run)
    # An evaluation of a run writes to the run's own folder, whatever its configuration says.
    kept = config.model_copy(update={"run_dir": source}) if is_run else config
    with run_location(kept) as location, naming_folder(location):
        return _evaluate_in(location, config, observer, is_run=is_run)


def _evaluate_in(location: str, config: RunConfig, observer: Observer, *, is_run: bool) -> EvaluationResult:
    """The result of an evaluation that the folder `location` keeps."""
    from pmpo_ray.actors.cluster import LOCAL, connected, connected_cluster

    prepared_tasks = prepare_tasks(config, tasks_from_python(config, location, {}))
    with hold(location) as lease:
        store = _store(config, location, lease)
        plans = _plans(config, prepared_tasks, store, is_run=is_run)
        log_tasks(prepared_tasks)
        manifest = store.read_manifest()
        day = datetime.now(UTC).date() if manifest is None else start_day(manifest)
        with connected(config.ray) as address:
            announce(config, os.environ, evaluates=True, local=address == LOCAL)
            offered = connected_cluster()

            def place(roles: Mapping[str, Replica]) -> dict[str, ReplicaPlan]:
                placed = place_roles(roles, config.ray, offered, local=address == LOCAL)
                return {role: replace(plan, day=day) for role, plan in placed.items()}

            results = run_to_end(Evaluation(config, store, plans, observer, place).run())
        store.write_evaluation(results)
        _write_judged_outputs(store, prepared_tasks, results)
    free = {instruction.name for plan in plans for instruction in plan.instructions if instruction.free}
    return EvaluationResult(summarise(results, free), results, store.location)


def _config(source: str, overrides: Sequence[Override], *, is_run: bool) -> RunConfig:
    if not is_run and not Path(source).is_file():
        raise ConfigError(f"{source}: neither a run folder nor a configuration file; check the path")
    if not is_run:
        return load_config(source, overrides)
    config = kept_config(source, overrides)
    changed = _fixed_differences(source, config)
    if changed:
        raise ConfigError(
            f"--set {changed[0]}: an evaluation takes it from the run, because other values could put "
            "training examples into the test part; leave it out, or evaluate a configuration file"
        )
    return config


def _fixed_differences(location: str, config: RunConfig) -> list[str]:
    """The keys that an evaluation takes from the run in `location`, and that differ in `config`."""
    kept = kept_config(location)
    return [key for key in differences(kept, config) if key.split(".")[0] not in _CHANGEABLE]


def _plans(
    config: RunConfig, prepared_tasks: Sequence[PreparedTask], store: RunStore, *, is_run: bool
) -> list[TaskPlan]:
    if not is_run:
        return [plan_file(config, prepared) for prepared in prepared_tasks]
    plans = [plan for one in prepared_tasks if (plan := plan_run(config, one, store)) is not None]
    if not plans:
        raise RunFolderError(f"{store.location}: no task has a finished round yet; continue the run first")
    return plans


def _store(config: RunConfig, location: str, lease: Lease) -> RunStore:
    if not RunStore.exists(location):
        return RunStore.create(location, dump_config(config), lease)
    store = RunStore.open(location, lease)
    changed = _fixed_differences(location, config)
    if changed:
        raise RunFolderError(
            f"{location} was made with another {changed[0]}; give another --run-dir, or evaluate the run "
            "itself"
        )
    return store


def _write_judged_outputs(
    store: RunStore, prepared_tasks: Sequence[PreparedTask], results: Sequence[ConditionResult]
) -> None:
    """Write the replies that a judge compared in AlpacaEval's format, for AlpacaEval's tools."""
    inputs = {
        prepared.task.name: {example.id: example.input for example in prepared.split.test}
        for prepared in prepared_tasks
    }
    for result in results:
        condition = result.condition
        if condition.method != "judged":
            continue
        parts = (condition.task, condition.model, condition.name, condition.shots, condition.repetition)
        name = "-".join(task_folder(str(part)).replace("~", "-") for part in parts)
        document = outputs_document(
            [inputs[condition.task][outcome.example] for outcome in result.outcomes],
            [without_thoughts(outcome.reply) for outcome in result.outcomes],
            generator=f"{condition.model} ({condition.name})",
        )
        store.write_file(f"outputs-{name}.json", json.dumps(document, indent=1).encode())
