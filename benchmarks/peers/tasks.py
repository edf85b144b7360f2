"""The tasks of the comparison, their training rows and their held-out rows.

Invariants: every contestant gets the same training rows for a task and a seed; the held-out rows are the same
for all seeds, and no training row has the input of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.peers.job import LabelledRow
from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.tasks import load_task
from pmpo_ray.tasks.benchmarks import STEP_BY_STEP
from pmpo_ray.tasks.keys import input_key
from pmpo_ray.types import Example

TRAINING_ROWS = 40
HELD_OUT_ROWS = 400

_DESCRIPTIONS = {
    "sst2": "Decide whether the opinion in a piece of a film review is negative or positive.",
    "subj": "Decide whether a sentence about a film is objective (it states facts) or subjective (it states "
    "an opinion).",
    "trec": "Decide what a question asks for: abbreviation, description, entity, human, location or number.",
    "tickets": "Decide which kind of ticket a customer's message is: billing, bug report, account access, "
    "shipping, feature request or praise.",
}
TASKS = tuple(_DESCRIPTIONS)


@dataclass(frozen=True, slots=True)
class PeerTask:
    """A task with the rows to draw training rows from (`pool`) and the held-out rows. Its description, alone,
    is a baseline; the start instruction adds the paper's start instruction to it."""

    name: str
    description: str
    labels: tuple[str, ...]
    pool: tuple[Example, ...]
    held_out: tuple[Example, ...]

    @property
    def start(self) -> str:
        return f"{self.description}\n{STEP_BY_STEP}"

    def training_rows(self, seed: int) -> tuple[LabelledRow, ...]:
        """The training rows of a seed, with equal parts of every label."""
        drawn = balanced(self.pool, self.labels, TRAINING_ROWS, Random(f"{self.name}:{seed}"))
        return tuple(LabelledRow(one.input, one.target) for one in drawn)


def peer_task(name: str, data_dir: str | None, held_out: int = HELD_OUT_ROWS) -> PeerTask:
    """One of TASKS with at most `held_out` held-out rows. Raises DataError if its data can't be read."""
    task = load_task(TaskConfig(name=name), data_dir, seed=0)
    rng = Random(f"{name}:held out")
    if task.test_examples:
        reserved = rng.sample(task.test_examples, min(HELD_OUT_ROWS, len(task.test_examples)))
    else:
        reserved = balanced(task.examples, task.labels, HELD_OUT_ROWS, rng)
    # All reserved rows, even those that are not asked: the training rows must not depend on their number.
    keys = {input_key(one.input) for one in (*reserved, *task.test_examples)}
    pool = {key: one for one in task.examples if (key := input_key(one.input)) not in keys}
    return PeerTask(name, _DESCRIPTIONS[name], task.labels, tuple(pool.values()), tuple(reserved[:held_out]))


def balanced(examples: Sequence[Example], labels: Sequence[str], number: int, rng: Random) -> list[Example]:
    """`number` random examples, or all if there are fewer. In every prefix the counts of the labels differ by
    at most one, as long as no label runs out."""
    left = {label: [one for one in examples if one.target == label] for label in labels}
    for group in left.values():
        rng.shuffle(group)
    drawn: list[Example] = []
    while len(drawn) < number and any(left.values()):
        cycle = rng.sample(list(labels), len(labels))
        drawn += [left[label].pop() for label in cycle if left[label]][: number - len(drawn)]
    return drawn
