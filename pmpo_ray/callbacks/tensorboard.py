"""TensorBoard tracker: one TensorBoard run for each task, so that the curves of all tasks share their charts.

Invariant: TensorBoard renders texts as Markdown; every text is in a code block that its content cannot close.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
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
from pmpo_ray.outcomes import TaskFailure, TaskResult
from pmpo_ray.store import task_folder
from pmpo_ray.types import RoundRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from pmpo_ray.result import RunResult


class TensorboardTracker(Callback):
    """Writes event files to `log_dir`, those of a task to a subfolder named after it."""

    def __init__(self, log_dir: str) -> None:
        self._log_dir = Path(log_dir)
        self._writers: dict[str, SummaryWriter] = {}

    def on_run_start(self, run: RunStart) -> None:
        writer = self._writer("")
        writer.add_text("configuration", code_block(_lines(flat_config(run.config).items())))
        writer.add_text("made with", code_block(_lines(environment(run).items())))
        writer.flush()

    def on_round(self, record: RoundRecord) -> None:
        writer = self._writer(record.task)
        for name, value in round_values(record).items():
            writer.add_scalar(f"round/{name}", value, record.round)
        writer.flush()

    def on_task_end(self, result: TaskResult) -> None:
        writer = self._writer(result.task)
        for name, value in result_values(result).items():
            writer.add_scalar(f"result/{name}", value, result.rounds)
        writer.add_text("best instruction", code_block(sendable(result.best)), result.rounds)
        self._close(result.task)

    def on_task_failed(self, failure: TaskFailure) -> None:
        self._writer(failure.task).add_text("failure", code_block(disclosed(failure.reason)))
        self._close(failure.task)

    def on_run_end(self, result: RunResult, finished: bool) -> None:
        state = f"{len(result.tasks)} tasks done, {len(result.failed)} failed"
        self._writer("").add_text("end", state if finished else f"{state}; not finished")
        for name in list(self._writers):
            self._close(name)

    def _writer(self, task: str) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        if task not in self._writers:
            folder = self._log_dir / task_folder(task) if task else self._log_dir
            self._writers[task] = SummaryWriter(str(folder))
        return self._writers[task]

    def _close(self, task: str) -> None:
        self._writers.pop(task).close()


def code_block(text: str) -> str:
    """`text` as a Markdown code block whose fence is longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def _lines(values: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{name} = {value}" for name, value in values)
