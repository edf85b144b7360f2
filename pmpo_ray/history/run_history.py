"""What a run folder tells: everything that reports, exports and comparisons read, as values.

Invariants: reading changes nothing, and works while the run goes on; the best instruction here is the one in
best.json; a task without a finished round is named in `waiting` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import RunFolderError
from pmpo_ray.store import Manifest, RunStore
from pmpo_ray.store.kept_config import kept_config
from pmpo_ray.types import (
    ConditionResult,
    Example,
    Refusal,
    ReplicaCount,
    RoundRecord,
    ScoredCandidate,
    SegmentImportance,
    TaskResult,
)


@dataclass(frozen=True)
class TaskHistory:
    """One task's rounds. Scores and losses by example are kept for the first and the best instruction alone.
    `examples` are the training examples in the order of those losses, none where the folder is of a version
    that did not keep them; `result` is None until the task is finished."""

    task: str
    records: tuple[RoundRecord, ...]
    best_id: str
    result: TaskResult | None
    examples: tuple[Example, ...]

    @cached_property
    def candidates(self) -> Mapping[str, ScoredCandidate]:
        """Every scored candidate by its id, oldest first."""
        found: dict[str, ScoredCandidate] = {}
        for record in self.records:
            for scored in record.candidates:
                found.setdefault(scored.candidate.id, scored)
        return dict(sorted(found.items()))

    @cached_property
    def refusals(self) -> tuple[tuple[int, Refusal], ...]:
        """Every text that was turned down, or could not be scored, with its round."""
        return tuple((record.round, refusal) for record in self.records for refusal in record.refusals)

    @property
    def start(self) -> ScoredCandidate:
        """The instruction that the search began with."""
        return self.records[0].candidates[0]

    @property
    def best(self) -> ScoredCandidate:
        return self.candidates[self.best_id]

    @property
    def losses(self) -> tuple[float, ...]:
        """The best loss after each round, round 0 first."""
        return tuple(record.scored_survivors[0].loss for record in self.records)

    @property
    def survived(self) -> frozenset[str]:
        """The ids of all that survived any round."""
        return frozenset(name for record in self.records for name in record.survivors)

    def lineage(self, candidate: str) -> tuple[ScoredCandidate, ...]:
        """The ancestors of a candidate from the seed on, itself last."""
        chain = [self.candidates[candidate]]
        while (parent := chain[-1].candidate.parent) is not None:
            chain.append(self.candidates[parent])
        return tuple(reversed(chain))

    def segments(self, candidate: str) -> tuple[SegmentImportance, ...]:
        """The importance of each unit of a candidate's text, in the text's order; none where it was not
        analysed."""
        rows = {
            row.index: row for record in self.records for row in record.segments if row.candidate == candidate
        }
        return tuple(rows[index] for index in sorted(rows))


@dataclass(frozen=True)
class RunHistory:
    """A run as its folder tells it. `at_work`: a driver holds the folder. `waiting` are the tasks without a
    finished round; `evaluation` is empty where there was none; `replicas` holds the counts of each driver
    that worked on the run."""

    location: str
    config: RunConfig
    manifest: Manifest | None
    at_work: bool
    tasks: tuple[TaskHistory, ...]
    waiting: tuple[str, ...]
    evaluation: tuple[ConditionResult, ...]
    replicas: tuple[tuple[ReplicaCount, ...], ...]

    def task(self, name: str | None = None) -> TaskHistory:
        """The task called `name`; without a name, the only one.

        Raises RunFolderError where there is no such task, or more than one to choose from.
        """
        found = {task.task: task for task in self.tasks}
        if name is None and len(found) == 1:
            return self.tasks[0]
        if name is not None and name in found:
            return found[name]
        known = ", ".join(list(found)[:8]) + (", ..." if len(found) > 8 else "")
        if name is None:
            raise RunFolderError(f"{self.location} holds {len(found)} tasks; name one of {known}")
        if name in self.waiting:
            raise RunFolderError(
                f"{self.location}: task {name} has no finished round yet; continue the run first"
            )
        raise RunFolderError(f"{self.location} holds no task {name}; name one of {known}")


def load_history(location: str) -> RunHistory:
    """Read the run folder at `location` (a path or s3://...).

    Raises RunFolderError where there is no run, where no task has a finished round, or for a damaged file.
    """
    store = RunStore.open(location)
    config = kept_config(location)
    # Asked before the results are read: a run that ends meanwhile is not taken for one that stopped short.
    at_work = store.is_held()
    tasks: list[TaskHistory] = []
    waiting: list[str] = []
    for name in config.named_searches():
        history = _task(store, name)
        if history is None:
            waiting.append(name)
        else:
            tasks.append(history)
    if not tasks:
        raise RunFolderError(f"{location}: no task has a finished round yet; continue the run first")
    return RunHistory(
        location=store.location,
        config=config,
        manifest=store.read_manifest(),
        at_work=at_work,
        tasks=tuple(tasks),
        waiting=tuple(waiting),
        evaluation=store.read_evaluation() or (),
        replicas=store.read_replicas(),
    )


def _task(store: RunStore, name: str) -> TaskHistory | None:
    best = store.read_best_id(name)
    if best is None:
        return None
    first = store.read_round(name, 0)
    start = first.candidates[0].candidate.id
    later = (store.read_round(name, number, {start, best}) for number in range(1, store.count_rounds(name)))
    return TaskHistory(
        task=name,
        records=(first.slim({start, best}), *later),
        best_id=best,
        result=store.read_task_result(name),
        examples=store.read_training(name) or (),
    )
