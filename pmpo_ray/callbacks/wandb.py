"""Weights & Biases tracker: one W&B run, in which every task has a section with its own rounds.

Invariant: a continued run keeps its id, so that all its parts are one W&B run, even if they are recorded
offline and synced later.
"""

from __future__ import annotations

import logging
from pathlib import PurePosixPath
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
from pmpo_ray.config.tracking import WandbConfig
from pmpo_ray.outcomes import TaskFailure, TaskResult
from pmpo_ray.store import task_folder
from pmpo_ray.types import RoundRecord

if TYPE_CHECKING:
    import wandb

    from pmpo_ray.result import RunResult

_log = logging.getLogger(__name__)
_COLUMNS = ["task", "instruction", "loss before", "loss after", "accuracy before", "accuracy after"]


class WandbTracker(Callback):
    """Logs the metrics of each round (such as TASK/best_loss) against TASK/round, the results as the summary
    of the run, and a table of the best instructions. wandb's environment variables apply to everything that
    `settings` leaves open, such as the server."""

    _run: wandb.Run

    def __init__(self, settings: WandbConfig) -> None:
        self._settings = settings
        self._results: list[TaskResult] = []

    def on_run_start(self, run: RunStart) -> None:
        import wandb

        self._run = wandb.init(
            project=self._settings.project,
            entity=self._settings.entity,
            mode=self._settings.mode,
            id=f"pmpo-{run.id}",
            resume="allow",
            name=PurePosixPath(run.run_dir).name,
            config={**flat_config(run.config), **environment(run), "run_dir": run.run_dir},
            allow_val_change=True,
            # wandb must not print between the progress and the result of a run.
            settings=wandb.Settings(console="off", silent=True),
        )
        _log.info("wandb: %s", self._run.dir if self._run.offline else self._run.url)
        for task in run.tasks:
            section = task_folder(task)
            self._run.define_metric(f"{section}/round", hidden=True)
            self._run.define_metric(f"{section}/*", step_metric=f"{section}/round")

    def on_round(self, record: RoundRecord) -> None:
        section = task_folder(record.task)
        values = {f"{section}/{name}": value for name, value in round_values(record).items()}
        self._run.log({f"{section}/round": record.round, **values})

    def on_task_end(self, result: TaskResult) -> None:
        self._results.append(result)
        section = task_folder(result.task)
        self._run.summary.update(
            {f"{section}/{name}": value for name, value in result_values(result).items()}
        )

    def on_task_failed(self, failure: TaskFailure) -> None:
        self._run.summary[f"{task_folder(failure.task)}/failure"] = disclosed(failure.reason)

    def on_run_end(self, result: RunResult, finished: bool) -> None:
        import wandb

        if self._results:
            rows = [_row(result) for result in self._results]
            self._run.log({"best instructions": wandb.Table(columns=_COLUMNS, data=rows)})
        self._run.finish(exit_code=0 if finished and not result.failed else 1)


def _row(result: TaskResult) -> list[str | float | None]:
    values = result_values(result)
    numbers = [values.get(column.replace(" ", "_")) for column in _COLUMNS[2:]]
    return [result.task, sendable(result.best), *numbers]
