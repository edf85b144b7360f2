"""MLflow tracker: a parent run with a child run for each task, and the best instructions in the prompt
registry.

Invariants: a continued run continues the same MLflow runs, which are found by its id; an instruction is
registered once per task of a run, and verbatim.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from statistics import fmean
from typing import TYPE_CHECKING

from pmpo_ray.callbacks.dispatch import Callback, RunStart
from pmpo_ray.callbacks.values import (
    disclosed,
    environment,
    flat_config,
    result_values,
    round_values,
    sendable,
)
from pmpo_ray.config.tracking import MlflowConfig
from pmpo_ray.outcomes import TaskFailure, TaskResult
from pmpo_ray.store import task_folder
from pmpo_ray.types import RoundRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pmpo_ray.result import RunResult

# Limits of MLflow.
_PARAM_CHARS = 6000
_TAG_CHARS = 5000
_PARAMS_AT_ONCE = 100

_RUN, _TASK, _DIGEST = "pmpo.run", "pmpo.task", "pmpo.prompt_sha256"
_PARENT = ""
_LITERAL = "Optimised by PMPO. Use the template as it is: braces in it are text, not variables."


class MlflowTracker(Callback):
    """Logs a run to the server or database at `settings.uri`, or to MLflow's default (MLFLOW_TRACKING_URI)
    if it is not set. The client is used without an active run, so it does not mix with other runs that the
    process tracks."""

    _client: MlflowClient
    _start: RunStart
    _experiment: str

    def __init__(self, settings: MlflowConfig) -> None:
        self._settings = settings
        self._stored: dict[str, str] = {}
        """IDs of the MLflow runs that exist, by task; the parent run has the key ""."""
        self._open: dict[str, str] = {}

    def on_run_start(self, run: RunStart) -> None:
        from mlflow import MlflowClient

        self._start, self._client = run, MlflowClient(tracking_uri=self._settings.uri)
        named = self._client.get_experiment_by_name(self._settings.experiment)
        self._experiment = (
            named.experiment_id if named else self._client.create_experiment(self._settings.experiment)
        )
        existing = self._client.search_runs(
            [self._experiment], f"tags.`{_RUN}` = '{run.id}'", max_results=1000
        )
        self._stored = {one.data.tags.get(_TASK, _PARENT): one.info.run_id for one in existing}
        parent = self._id(_PARENT)
        for name, text in environment(run).items():
            self._client.set_tag(parent, name, text[:_TAG_CHARS])
        self._log_params(parent, flat_config(run.config))

    def on_round(self, record: RoundRecord) -> None:
        self._log_metrics(self._id(record.task), round_values(record), record.round)

    def on_task_end(self, result: TaskResult) -> None:
        child = self._id(result.task)
        self._log_metrics(child, result_values(result), result.rounds)
        self._client.set_tag(child, "stopped", result.stopped[:_TAG_CHARS])
        self._client.set_tag(child, "instruction", sendable(result.best)[:_TAG_CHARS])
        if self._settings.register_prompts:
            self._register(child, result)
        self._end(result.task, "FINISHED")

    def on_task_failed(self, failure: TaskFailure) -> None:
        self._client.set_tag(self._id(failure.task), "failure", disclosed(failure.reason)[:_TAG_CHARS])
        self._end(failure.task, "FAILED")

    def on_run_end(self, result: RunResult, finished: bool) -> None:
        values = {"tasks_done": float(len(result.tasks)), "tasks_failed": float(len(result.failed))}
        numbers = list(map(result_values, result.tasks))
        for name in ("loss_before", "loss_after", "accuracy_before", "accuracy_after"):
            if known := [one[name] for one in numbers if name in one]:
                values[f"mean_{name}"] = fmean(known)
        self._log_metrics(self._id(_PARENT), values, 0)
        state = "FAILED" if result.failed else "FINISHED" if finished else "KILLED"
        for task in list(self._open):
            self._end(task, state if task == _PARENT else "KILLED")

    def _id(self, task: str) -> str:
        """The ID of the MLflow run of a task, which is created or reopened if it is not open."""
        if task not in self._open:
            self._open[task] = self._reopened(task) if task in self._stored else self._created(task)
        return self._open[task]

    def _reopened(self, task: str) -> str:
        self._client.update_run(self._stored[task], status="RUNNING")
        return self._stored[task]

    def _created(self, task: str) -> str:
        tags = {_RUN: self._start.id, "run_dir": self._start.run_dir[:_TAG_CHARS]}
        name = PurePosixPath(self._start.run_dir).name
        if task != _PARENT:
            tags |= {_TASK: task, "mlflow.parentRunId": self._id(_PARENT)}
            name = task
        created = self._client.create_run(self._experiment, tags=tags, run_name=name)
        self._stored[task] = created.info.run_id
        return self._stored[task]

    def _end(self, task: str, status: str) -> None:
        self._client.set_terminated(self._open.pop(task), status)

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Log the parameters that are not logged yet. Values that a continued run changed become tags, since
        MLflow does not let a parameter change."""
        from mlflow.entities import Param

        cut = {name: text[:_PARAM_CHARS] for name, text in params.items()}
        logged = self._client.get_run(run_id).data.params
        new = [Param(name, text) for name, text in cut.items() if name not in logged]
        for first in range(0, len(new), _PARAMS_AT_ONCE):
            self._client.log_batch(run_id, params=new[first : first + _PARAMS_AT_ONCE])
        for name, text in cut.items():
            if logged.get(name, text) != text:
                self._client.set_tag(run_id, f"changed.{name}", text[:_TAG_CHARS])

    def _log_metrics(self, run_id: str, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(
            run_id, metrics=[Metric(name, value, now, step) for name, value in values.items()]
        )

    def _register(self, child: str, result: TaskResult) -> None:
        """Register the best instruction as a prompt, unless an earlier process of this run did."""
        text = sendable(result.best)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if self._client.get_run(child).data.tags.get(_DIGEST) == digest:
            return
        numbers = {name: f"{value:.6g}" for name, value in result_values(result).items()}
        prompt = self._client.register_prompt(
            # MLflow does not allow the "~" that some folder names contain.
            name=f"pmpo-{task_folder(result.task)}".replace("~", "-"),
            template=text,
            commit_message=_LITERAL,
            tags={**numbers, "task": sendable(result.task), _RUN: self._start.id, "mlflow_run": child},
        )
        self._client.set_tag(child, "prompt", prompt.uri)
        self._client.set_tag(child, _DIGEST, digest)
