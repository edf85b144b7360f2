"""Timing the contestants on one workload.

Invariants: the contestants take turns, so that a machine that slows down slows all of them; every timed run
starts cold; what is compared are medians; results are checked against fp32 before they count.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from benchmarks.scoring.children import Answer, Child, ContestantLostError, Roster, Setting
from benchmarks.scoring.workloads import Workload

REPETITIONS = 3
ENOUGH_SECONDS = 60.0
"""A contestant that has used more than this on a workload is not run on it again."""


@dataclass(slots=True)
class Record:
    """The measurements of one contestant on one workload; `times` in seconds, one per cold run."""

    contestant: str
    note: str = ""
    times: list[float] = field(default_factory=list)
    logprobs: tuple[float, ...] = ()
    tokens_computed: int | None = None
    peak_mb: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    def add(self, answer: Answer) -> None:
        self.times.append(answer.seconds)
        self.logprobs = answer.ratings.logprobs
        self.tokens_computed = answer.ratings.tokens_computed


@dataclass(frozen=True, slots=True)
class Timed:
    """The records of a workload's contestants, and one line for each that was lost."""

    records: tuple[Record, ...]
    lost: tuple[str, ...]


def time_workload(children: Roster, names: Sequence[str], setting: Setting, workload: Workload) -> Timed:
    """Run every contestant `REPETITIONS` times on the workload, taking turns if all fit into memory."""
    records: dict[str, Record] = {}
    lost: list[str] = []
    for order in [names] if children.concurrent else [[name] for name in names]:
        for step in range(1 + REPETITIONS):
            for name in order if step == 0 else [name for name in order if name in records]:
                try:
                    child = children.child(name, setting)
                    if step == 0:
                        records[name] = Record(name, child.ready())
                        _warm_up(child, workload)
                    elif sum(records[name].times) <= ENOUGH_SECONDS:
                        _run_once(child, records[name], workload)
                except ContestantLostError as error:
                    children.drop(name, setting)
                    records.pop(name, None)
                    lost.append(str(error))
    return Timed(tuple(records.values()), tuple(lost))


def fp32_logprobs(children: Roster, judge: str, setting: Setting, workload: Workload) -> tuple[float, ...]:
    """The log-probabilities of the reference `judge` in fp32. Raises ContestantLostError."""
    exact = Setting(setting.model, setting.device, "float32")
    return children.child(judge, exact).rate(workload.requests).ratings.logprobs


def largest_difference(found: Sequence[float], expected: Sequence[float]) -> float:
    """The largest difference of any two sums, in nats."""
    return max(abs(one - other) for one, other in zip(found, expected, strict=True))


def doubling(children: Roster, setting: Setting, single: Workload, double: Workload) -> tuple[Record, Record]:
    """The project's engine on a workload and on the same one with twice the answers, taking turns.

    Raises ContestantLostError.
    """
    child = children.child("pmpo", setting)
    records = Record("pmpo", child.ready()), Record("pmpo", child.ready())
    for workload in (single, double):
        _warm_up(child, workload)
    for _ in range(REPETITIONS):
        for record, workload in zip(records, (single, double), strict=True):
            _run_once(child, record, workload)
    return records


def _warm_up(child: Child, workload: Workload) -> None:
    """Run it once on a single answer, for the costs of the first run."""
    first = workload.requests[0][0]
    child.rate([(replace(first, answers=first.answers[:1]),)])


def _run_once(child: Child, record: Record, workload: Workload) -> None:
    child.reset_peak()
    record.add(child.rate(workload.requests))
    peak = child.peak_mb()
    if peak is not None:
        record.peak_mb = max(peak, record.peak_mb or 0.0)
