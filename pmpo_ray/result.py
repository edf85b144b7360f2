"""The result of a run, for scripts and notebooks.

Invariants: a result has no content that its run folder lacks, so one that is loaded later is equal; the
folder is read once, at the first access that needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

from pmpo_ray.outcomes import TaskFailure, TaskResult
from pmpo_ray.types import ScoredCandidate

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from pmpo_ray.history.run_history import RunHistory, TaskHistory

_COLUMNS = (
    "task",
    "round",
    "id",
    "parent",
    "lineage",
    "operator",
    "status",
    "reason",
    "loss",
    "surprisal",
    "text",
    "shots",
    "hard_case",
    "request",
)


@dataclass(frozen=True, repr=False)
class RunResult:
    """The result of a run: one result per task, in the configuration's order, and the run folder. `failed`
    are the tasks without a result; a failed task does not stop the others.

    `result["tickets"]` is the result of one task. Everything that reads the run folder raises RunFolderError
    if the folder is missing or damaged, or if one of several tasks has to be named.
    """

    tasks: tuple[TaskResult, ...]
    run_dir: str
    failed: tuple[TaskFailure, ...] = ()

    def __getitem__(self, task: str) -> TaskResult:
        """The result of the task with this name. Raises KeyError if there is none."""
        for result in self.tasks:
            if result.task == task:
                return result
        for failure in self.failed:
            if failure.task == task:
                raise KeyError(f"task {task!r} failed: {failure.reason}")
        raise KeyError(f"no result of a task {task!r}; there are results of: {self._names()}")

    @property
    def best(self) -> str:
        """The best instruction of a run with one task. Raises ValueError for any other run."""
        if len(self.tasks) != 1 or self.failed:
            raise ValueError(
                f"not one task with a result: use result[TASK].best; there are results of: {self._names()}"
            )
        return self.tasks[0].best

    @cached_property
    def history(self) -> RunHistory:
        """The contents of the run folder when this is first read."""
        from pmpo_ray.history.run_history import load_history

        return load_history(self.run_dir)

    def candidates(self, task: str | None = None) -> tuple[ScoredCandidate, ...]:
        """Every scored candidate of a task (None: of the only one), oldest first. Only the start and the best
        instruction have scores and losses by example."""
        return tuple(self.history.task(task).candidates.values())

    def parents(self, task: str | None = None) -> dict[str, str | None]:
        """The parent's id by the id of every scored candidate; None for the start."""
        return {scored.candidate.id: scored.candidate.parent for scored in self.candidates(task)}

    def losses(self, task: str | None = None) -> tuple[float, ...]:
        """The best training loss after each round, in nats, round 0 first."""
        return self.history.task(task).losses

    def to_pandas(self) -> pd.DataFrame:
        """A data frame with a row per candidate, refused ones included, by task and age: task, round (in
        which it was made), id, parent, lineage (the id of its first ancestor), operator, status (survivor of
        any round, dropped, refused or failed), reason (of a refusal or failure, or that the candidate left
        the race), loss (NaN if there is none), surprisal (of its text behind the task's description, in nats
        per token; NaN without `search.readability`), text, shots (the ids of its demonstrations), hard_case
        (the id of the example that it was written for) and request (of the model that wrote it: an id in
        `history.task().requests`, which has the meta-prompt)."""
        import pandas as pd

        rows = [row for task in self.history.tasks for row in _rows(task)]
        return pd.DataFrame(rows, columns=list(_COLUMNS)).astype({"loss": "float64", "surprisal": "float64"})

    def to_dict(self) -> dict[str, object]:
        """The result as plain JSON values: the document that `pmpo optimize --json` prints."""
        from pmpo_ray.display.result_json import result_json

        return result_json(self.tasks, self.run_dir, self.failed)

    def report(self, path: str | None = None) -> str:
        """Write the HTML report of the run to `path` (None: into the run folder), and return its address."""
        from pmpo_ray.report import write_report

        return write_report(self.run_dir, path)

    def _names(self) -> str:
        return ", ".join(result.task for result in self.tasks) or "none"

    def __repr__(self) -> str:
        parts = [f"task {self.tasks[0].task!r}" if len(self.tasks) == 1 else f"{len(self.tasks)} tasks"]
        mean = "mean " if len(self.tasks) > 1 else ""
        if self.tasks:
            losses = fmean(task.loss_before for task in self.tasks), fmean(t.loss_after for t in self.tasks)
            parts.append(f"{mean}loss {losses[0]:.3f} to {losses[1]:.3f}")
        pairs = [(task.accuracy_before, task.accuracy_after) for task in self.tasks]
        measured = [(before.value, after.value) for before, after in pairs if before and after]
        if measured:
            before, after = map(fmean, zip(*measured, strict=True))
            parts.append(f"{mean}accuracy {before:.1%} to {after:.1%}")
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        return f"<RunResult: {', '.join(parts)}, in {self.run_dir!r}>"

    def __rich__(self) -> RenderableType:
        """The text that `pmpo optimize` prints at its end."""
        from pmpo_ray.display.final_table import FinalTable

        return FinalTable(self.tasks, self.run_dir)

    def _repr_html_(self) -> str:
        from pmpo_ray.display.notebook import result_html

        return result_html(self.tasks, self.failed, self.run_dir)


def _rows(task: TaskHistory) -> list[dict[str, object]]:
    from pmpo_ray.history.task_facts import race_note

    scored: list[dict[str, object]] = [
        {
            "task": task.task,
            "round": one.candidate.round,
            "id": one.candidate.id,
            "parent": one.candidate.parent,
            "lineage": one.candidate.lineage,
            "operator": one.candidate.operator,
            "status": "survivor" if one.candidate.id in task.survived else "dropped",
            "reason": race_note(one),
            "loss": one.loss,
            "surprisal": one.surprisal,
            "text": one.candidate.text,
            "shots": one.candidate.shots,
            "hard_case": one.candidate.hard_case,
            "request": one.candidate.request,
        }
        for one in task.candidates.values()
    ]
    refused: list[dict[str, object]] = [
        {
            "task": task.task,
            "round": number,
            "id": refusal.id,
            "parent": refusal.parent,
            "lineage": refusal.lineage,
            "operator": refusal.operator,
            "status": refusal.status,
            "reason": refusal.reason,
            "loss": None,
            "surprisal": None,
            "text": refusal.text,
            "shots": refusal.shots,
            "hard_case": refusal.hard_case,
            "request": refusal.request,
        }
        for number, refusal in task.refusals
    ]
    return sorted([*scored, *refused], key=lambda row: str(row["id"]))
