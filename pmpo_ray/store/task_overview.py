"""The form in which a task was taken, as counts for the user, as the manifest of a run keeps it.

Invariant: everything here follows from the task and its split, not from a search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pmpo_ray.text import excerpt
from pmpo_ray.types import Kind, Split, Task

_FEW = 3
"""The number of training examples of a label below which the user is warned."""
_NAMED = 8


@dataclass(frozen=True, slots=True)
class TaskOverview:
    """The form in which a task was taken: its kind, the objective, the number of examples of each part, and
    of each answer in each part if the answers are a closed set; `notes` and `warnings` are for the user."""

    kind: Kind
    objective: str
    parts: Mapping[str, int]
    answers: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def overview_of(task: Task, split: Split, answers: Sequence[str], objective: str) -> TaskOverview:
    """The overview of a task with its closed set of `answers` (empty if there is none)."""
    parts = {
        "train": split.train,
        "shots": split.shots,
        "validation": split.validation,
        "test": split.test,
    }
    shown = {name: examples for name, examples in parts.items() if examples or name in ("train", "test")}
    counts = {name: Counter(example.target for example in examples) for name, examples in shown.items()}
    return TaskOverview(
        kind=task.kind,
        objective=objective,
        parts={name: len(examples) for name, examples in shown.items()},
        answers={answer: {name: counts[name][answer] for name in shown} for answer in answers},
        notes=task.notes,
        warnings=_few(task, counts["train"]),
    )


def _few(task: Task, train: Counter[str]) -> tuple[str, ...]:
    few = sorted((train[label], label) for label in task.labels if train[label] < _FEW)
    if not few:
        return ()
    named = ", ".join(f"{excerpt(label, 40)} {count}" for count, label in few[:_NAMED])
    more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
    return (
        f"{len(few)} of {len(task.labels)} labels have fewer than {_FEW} training examples: {named}{more}; "
        "the search can hardly learn them: add rows, or raise split.train_fraction or split.train_max",
    )
