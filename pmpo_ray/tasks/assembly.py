"""Make a task from rows: give them ids and negatives.

Invariants: an id depends only on the input and the target of its row; rows that are equal in both get a
number as a suffix, so no two examples of a task share an id.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from random import Random

from pmpo_ray.tasks.negatives import TaskAnswers, negatives_of, task_answers
from pmpo_ray.tasks.rows import Row
from pmpo_ray.types import Example, Kind, Task


@dataclass(frozen=True, slots=True)
class Draft:
    """A task whose rows do not yet have ids and negatives."""

    name: str
    kind: Kind
    description: str
    instruction: str
    rows: tuple[Row, ...]
    test_rows: tuple[Row, ...] = ()
    labels: tuple[str, ...] = ()


def assemble(draft: Draft, seed: int) -> Task:
    """Give every row its id and its negatives; those of free text are sampled with `seed`.

    Raises DataError for a pair without a usable negative, and for a target outside the label set.
    """
    answers = task_answers(draft.rows, draft.labels)
    copies: Counter[str] = Counter()
    return Task(
        name=draft.name,
        kind=draft.kind,
        description=draft.description,
        instruction=draft.instruction,
        examples=tuple(_example(row, draft, answers, seed, copies) for row in draft.rows),
        labels=draft.labels if draft.kind == "labels" else (),
        test_examples=tuple(_example(row, draft, answers, seed, copies) for row in draft.test_rows),
    )


def _example(row: Row, draft: Draft, answers: TaskAnswers, seed: int, copies: Counter[str]) -> Example:
    content = sha256(f"{row.input}\0{row.target}".encode()).hexdigest()[:12]
    copies[content] += 1
    rng = Random(f"negatives:{seed}:{draft.name}:{content}")
    return Example(
        id=content if copies[content] == 1 else f"{content}-{copies[content]}",
        input=row.input,
        target=row.target,
        negatives=negatives_of(row, draft.kind, answers, rng),
        weight=row.weight,
    )
