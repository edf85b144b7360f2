"""Make a task from rows: give them ids and negatives.

Invariants: an id depends only on the input and the target of its row; rows that are equal in both get a
number as a suffix, so no two examples of a task share an id.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from pmpo_ray.tasks.example_ids import content_id
from pmpo_ray.tasks.negatives import TaskAnswers, negatives_of, task_answers, with_hard_negatives
from pmpo_ray.tasks.rows import Row
from pmpo_ray.types import Example, Kind, Task


@dataclass(frozen=True, slots=True)
class Draft:
    """A task whose rows do not yet have ids and negatives. `instructions` are those to start from."""

    name: str
    kind: Kind
    description: str
    instructions: tuple[str, ...]
    rows: tuple[Row, ...]
    test_rows: tuple[Row, ...] = ()
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    meanings: tuple[str, ...] = ()


def assemble(draft: Draft, seed: int) -> Task:
    """Give every row its id and its negatives. Free text gets its negatives later (`with_hard_negatives`);
    where an input lists no options, they are sampled with `seed`.

    Raises DataError for a pair without a usable negative, and for a target outside the label set.
    """
    # Only options need the targets here: finding the forms of many texts takes a while.
    targets = [row.target for row in draft.rows] if draft.kind == "options" else []
    answers = task_answers(targets, draft.labels)
    copies: Counter[str] = Counter()
    task = Task(
        name=draft.name,
        kind=draft.kind,
        description=draft.description,
        instruction=draft.instructions[0],
        examples=tuple(_example(row, draft.kind, answers, copies) for row in draft.rows),
        labels=draft.labels if draft.kind == "labels" else (),
        test_examples=tuple(_example(row, draft.kind, answers, copies) for row in draft.test_rows),
        notes=draft.notes,
        meanings=draft.meanings,
        starts=draft.instructions[1:],
    )
    if task.kind == "options":
        task = replace(
            task,
            examples=with_hard_negatives(task, task.examples, seed),
            test_examples=with_hard_negatives(task, task.test_examples, seed),
        )
    return task


def _example(row: Row, kind: Kind, answers: TaskAnswers, copies: Counter[str]) -> Example:
    content = content_id(row.input, row.target)
    copies[content] += 1
    return Example(
        id=content if copies[content] == 1 else f"{content}-{copies[content]}",
        input=row.input,
        target=row.target,
        negatives=negatives_of(row, kind, answers),
        weight=row.weight,
    )
