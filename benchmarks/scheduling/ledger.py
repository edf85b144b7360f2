"""A ledger of the work by task, and the lower bound on the time of any schedule for it.

Invariant: a lower bound counts each unit with the time that it took its replica, and nothing else: no
latency, no waiting, no driver.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pmpo_ray.actors.pool import Pool
from pmpo_ray.outcomes import Progress
from pmpo_ray.types import GenerateResult, ScoreResult

T = TypeVar("T")

TASK: ContextVar[str] = ContextVar("task")
"""The task that a piece of work is done for."""


@dataclass(slots=True)
class Ledger:
    """Units by role, task and phase (a round's rewriting, a round's scoring), in seconds of replica time."""

    phases: dict[str, tuple[str, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    longest: dict[tuple[str, tuple[str, int]], float] = field(default_factory=lambda: defaultdict(float))
    units: int = 0

    def observe(self, progress: Progress) -> None:
        """Note the phase of a task (an Observer)."""
        self.phases[progress.task] = (progress.state, progress.round)

    def add(self, role: str, seconds: float) -> None:
        """Add a unit of the current task and phase that took `seconds`."""
        task = TASK.get()
        at = (task, self.phases[task])
        self.units += 1
        self.seconds[role] += seconds
        self.longest[at] = max(self.longest[at], seconds)

    def lower_bound(self, places: dict[str, int], tasks: Sequence[str]) -> float:
        """The seconds that every schedule takes at least: the work of a role over its slots, or the longest
        chain, since a task's phases follow each other and each takes at least its longest unit."""
        chains: dict[str, float] = dict.fromkeys(tasks, 0.0)
        for (task, _), seconds in self.longest.items():
            chains[task] += seconds
        return max(max(chains.values()), *(self.seconds[role] / count for role, count in places.items()))


class RecordedPool(Pool):
    """A pool that enters every answered unit into a ledger."""

    ledger: Ledger

    async def submit(self, method: Callable[..., Awaitable[T]], *args: object, **how: Any) -> T:
        result = await super().submit(method, *args, **how)
        assert isinstance(result, ScoreResult | GenerateResult)
        self.ledger.add(self._spec.role, result.seconds)
        return result


@dataclass(frozen=True, slots=True)
class Row:
    """One measured run. `ratio` is makespan over lower bound, `idle_share` the scorers' share of time without
    work; `driver_ms_per_unit` is processor time of the driver without that of engines in its process."""

    mode: str
    tasks: int
    replicas: int
    makespan_s: float
    lower_bound_s: float
    ratio: float
    idle_share: float
    driver_ms_per_unit: float
    driver_rss_mb: float
    units: int
    rounds: int
