"""A run folder as values: everything that displays, reports, exports and comparisons read.

Invariants: reading changes nothing, and works while the run goes on; the best instruction here is the one in
best.json, or, if that is damaged, the one that the rounds say; a task without a finished round is named in
`waiting` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import RunFolderError
from pmpo_ray.evaluation.conditions import BEST, START
from pmpo_ray.outcomes import AnswerBias, Condition, ConditionResult, ReplicaCount, TaskResult
from pmpo_ray.store import Manifest, RunStore
from pmpo_ray.store.kept_config import config_in
from pmpo_ray.store.task_overview import TaskOverview
from pmpo_ray.types import (
    Example,
    Refusal,
    RoundRecord,
    ScoredCandidate,
    SegmentImportance,
    WritingRequest,
)


@dataclass(frozen=True)
class TaskHistory:
    """One task's rounds. Scores and losses by example are kept for the first and the best instruction alone.
    `examples` are the training examples in the order of those losses, empty in a folder of a version that did
    not keep them; `result` is None until the task is finished, and again if it continues for more rounds."""

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
        """Every text that was refused, or could not be scored, with its round."""
        return tuple((record.round, refusal) for record in self.records for refusal in record.refusals)

    @cached_property
    def requests(self) -> Mapping[str, WritingRequest]:
        """Every request to the model that writes by its id, oldest first, as in `Candidate.request`. Empty in
        a folder of an earlier version."""
        return {one.id: one for record in self.records for one in record.requests}

    @property
    def start(self) -> ScoredCandidate:
        """The instruction that results are compared with: the first of those that the search began with."""
        return self.records[0].candidates[0]

    @property
    def best(self) -> ScoredCandidate:
        """The best instruction of the search."""
        return self.candidates[self.best_id]

    @property
    def demonstrations(self) -> tuple[Example, ...]:
        """The demonstrations that belong to the best instruction, without those whose training examples the
        folder has lost."""
        examples = {example.id: example for example in self.examples}
        return tuple(examples[name] for name in self.best.candidate.shots if name in examples)

    @property
    def biases(self) -> tuple[AnswerBias, ...]:
        """The constants of calibrated choices; empty while there is no result, and if nothing is
        calibrated."""
        return self.result.biases if self.result is not None else ()

    def is_best(self, condition: Condition) -> bool:
        """True if the condition is of the best instruction, with its demonstrations."""
        best = self.best.candidate
        return (condition.name, condition.instruction, condition.own_shots) == (BEST, best.text, best.shots)

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
        """The importance of each unit of a candidate's text, in the text's order; empty if it was not
        analysed."""
        rows = {
            row.index: row for record in self.records for row in record.segments if row.candidate == candidate
        }
        return tuple(rows[index] for index in sorted(rows))


@dataclass(frozen=True)
class RunHistory:
    """A run as values. `at_work`: a driver holds the folder. `waiting`: the tasks without a finished round;
    `results` are those of the finished tasks; `evaluation` is empty without one; `replicas` holds the
    counts of each driver that worked on the run."""

    location: str
    config: RunConfig
    manifest: Manifest | None
    at_work: bool
    tasks: tuple[TaskHistory, ...]
    waiting: tuple[str, ...]
    results: tuple[TaskResult, ...]
    evaluation: tuple[ConditionResult, ...]
    replicas: tuple[tuple[ReplicaCount, ...], ...]

    @property
    def has_many_tasks(self) -> bool:
        """True if the run has more than one task, whether or not they have begun."""
        return len(self.config.named_searches()) > 1

    def overview(self, task: str) -> TaskOverview | None:
        """The form in which a task was taken; None in a folder of an earlier version."""
        return self.manifest.tasks.get(task) if self.manifest is not None else None

    def task(self, name: str | None = None) -> TaskHistory:
        """The task called `name`; without a name, the only one.

        Raises RunFolderError if there is no such task, or more than one to choose from.
        """
        if name is None and len(self.tasks) == 1:
            return self.tasks[0]
        tasks = {task.task: task for task in self.tasks}
        if name is not None and name in tasks:
            return tasks[name]
        raise _no_task(self.location, name, list(tasks), self.waiting)


def load_history(location: str, only: str | None = None) -> RunHistory:
    """Read the run folder at `location` (a path or s3://...). With `only`, the rounds of that task alone are
    read, and `tasks` holds nothing else; of other tasks, `evaluation` holds only the start and the best.

    Raises RunFolderError if there is no run, if no task (or not the task `only`) has a finished round, or for
    a damaged file.
    """
    return read_history(RunStore.open(location), only)


def read_history(store: RunStore, only: str | None = None) -> RunHistory:
    """As `load_history`, of a run folder that is open."""
    config = config_in(store)
    # Before the results are read, so that a run that ends meanwhile does not count as one that stopped early.
    at_work = store.is_held()
    names = config.named_searches()
    counts = {name: store.count_rounds(name) for name in names}
    found = {
        name: task
        for name in names
        if counts[name] and only in (None, name) and (task := _task(store, name, counts[name])) is not None
    }
    begun = [name for name in names if name in found or (counts[name] and only not in (None, name))]
    waiting = tuple(name for name in names if name not in begun)
    if not begun:
        raise RunFolderError(f"{store.location}: no task has a finished round yet; continue the run first")
    if only is not None and only not in begun:
        raise _no_task(store.location, only, begun, waiting)
    # Verdicts are corrected for the number of tasks: of the other tasks they need these two instructions.
    selected = None if only is None else lambda task, name: task == only or name in (START, BEST)
    results = (found[name].result if name in found else _result(store, name, counts[name]) for name in begun)
    return RunHistory(
        location=store.location,
        config=config,
        manifest=store.read_manifest(),
        at_work=at_work,
        tasks=tuple(found.values()),
        waiting=waiting,
        results=tuple(result for result in results if result is not None),
        evaluation=store.read_evaluation(selected) or (),
        replicas=store.read_replicas(),
    )


def _task(store: RunStore, name: str, count: int) -> TaskHistory | None:
    """The history of a task with so many rounds, the last of which may be damaged; None if none is left."""
    best = store.read_best_id(name)
    records = store.read_rounds(name, () if best is None else (best,))
    if not records:
        return None
    _check_lineages(f"{store.location}: task {name}", records)
    result = _result(store, name, len(records)) if len(records) == count else None
    known = {scored.candidate.id for record in records for scored in record.candidates}
    if best is None or best not in known:
        # There is no best.json, or its instruction was made in a round that is damaged.
        best = best_of(records, result).candidate.id
        records = store.read_rounds(name, (best,))
    kept = {records[0].candidates[0].candidate.id, best}
    return TaskHistory(
        task=name,
        records=(records[0].slim(kept), *records[1:]),
        best_id=best,
        result=result,
        examples=store.read_training(name) or (),
    )


def best_of(records: Sequence[RoundRecord], result: TaskResult | None) -> ScoredCandidate:
    """The best candidate of a search: the one that the result names, which led a round, or, without a result
    of these records, the one that leads the last round."""
    leading = [record.scored_survivors[0] for record in reversed(records)]
    if result is None:
        return leading[0]
    named = [lead for lead in leading if lead.candidate.text == result.best]
    # The same text may have led with other demonstrations, and then with another loss.
    exact = [lead for lead in named if lead.loss == result.loss_after]
    return (exact or named or leading)[0]


def _check_lineages(place: str, records: Sequence[RoundRecord]) -> None:
    """Raises RunFolderError if a candidate's ancestors do not end in a seed of the search."""
    parents = {one.candidate.id: one.candidate.parent for record in records for one in record.candidates}
    rooted: set[str | None] = {None}
    for name in parents:
        chain: dict[str | None, None] = {}
        step: str | None = name
        while step not in rooted:
            if step in chain or step not in parents:
                raise RunFolderError(
                    f"{place}: the ancestors of candidate {name} are not in its rounds; restore these from "
                    "a copy"
                )
            chain[step] = None
            step = parents[step]
        rooted.update(chain)


def _result(store: RunStore, name: str, rounds: int) -> TaskResult | None:
    """The result of a task that has so many rounds, round 0 among them; None if it is not finished."""
    result = store.read_task_result(name)
    return result if result is not None and result.rounds == rounds - 1 else None


def _no_task(location: str, name: str | None, known: Sequence[str], waiting: Sequence[str]) -> RunFolderError:
    """The error for a task that cannot be shown."""
    names = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    if name is None:
        return RunFolderError(f"{location} holds {len(known)} tasks; name one of {names}")
    if name in waiting:
        return RunFolderError(f"{location}: task {name} has no finished round yet; continue the run first")
    return RunFolderError(f"{location} holds no task {name}; name one of {names}")
