"""The metrics of a run in Prometheus, through Ray's metrics.

Invariants: counters only grow, by the change since the last observation; a gauge is set at every observation,
since Ray drops a gauge that was not set for two of its reports (20 s); tags are the names of roles, states
and tasks, as bounded ASCII, which is all that Ray accepts.

Ray adds the prefix `ray_` to every name and `_total` to a counter's: `pmpo_units_done` here is
`ray_pmpo_units_done_total` there. A counter appears with its first increment.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, get_args

from ray.util.metrics import Counter, Gauge

from pmpo_ray.outcomes import Progress, State

TAG_CHARS = 120
"""The maximum length of a tag's value, in characters."""
_DIGEST_CHARS = 12


class PoolTotals(Protocol):
    """A snapshot of one pool. Counts and seconds are sums since the pool's start and never fall."""

    @property
    def queued(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def done(self) -> int: ...
    @property
    def retries(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def busy_seconds(self) -> float: ...
    @property
    def ready_seconds(self) -> float: ...
    @property
    def states(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class PoolChange:
    """The change of a pool between two observations. `tokens_per_second` is None if no time passed,
    `idle_share` (0 to 1) if no replica could have worked."""

    done: int
    retries: int
    failed: int
    tokens: int
    tokens_per_second: float | None
    idle_share: float | None


def pool_change(before: PoolTotals | None, after: PoolTotals, seconds: float) -> PoolChange:
    """The change from `before` to `after`, `seconds` later. Without `before`, the totals of the pool so far
    and no rates, since the time that they took is unknown."""
    if before is None:
        return PoolChange(after.done, after.retries, after.failed, after.tokens, None, None)
    tokens = after.tokens - before.tokens
    ready = after.ready_seconds - before.ready_seconds
    busy = after.busy_seconds - before.busy_seconds
    return PoolChange(
        done=after.done - before.done,
        retries=after.retries - before.retries,
        failed=after.failed - before.failed,
        tokens=tokens,
        tokens_per_second=tokens / seconds if seconds > 0 else None,
        # A replica that was suspected while it worked is busy without being ready.
        idle_share=min(1.0, max(0.0, 1 - busy / ready)) if ready > 0 else None,
    )


def tasks_by_state(tasks: Iterable[Progress]) -> Mapping[str, int]:
    """The number of tasks in each state; states without tasks count 0."""
    counts = Tally[str](task.state for task in tasks)
    return {state: counts[state] for state in get_args(State)}


def tag_value(text: str) -> str:
    """`text` as at most TAG_CHARS characters of printable ASCII; different texts stay different."""
    plain = text.encode("unicode_escape").decode("ascii")
    if len(plain) <= TAG_CHARS:
        return plain
    digest = hashlib.sha256(plain.encode()).hexdigest()[:_DIGEST_CHARS]
    return f"{plain[: TAG_CHARS - 1 - _DIGEST_CHARS]}~{digest}"


class Metrics:
    """The gauges and counters of one run. May be created before Ray is connected; only the states of tasks
    observed before that are kept."""

    def __init__(self) -> None:
        pool, task = ("pool",), ("task",)
        self._queued = Gauge("pmpo_units_queued", "Units of work waiting for a replica", pool)
        self._in_flight = Gauge("pmpo_units_in_flight", "Units of work sent to a replica", pool)
        self._done = Counter("pmpo_units_done", "Units of work answered", pool)
        self._retries = Counter("pmpo_unit_retries", "Units of work given to another replica", pool)
        self._failed = Counter("pmpo_units_failed", "Units of work that failed for good", pool)
        self._tokens = Counter("pmpo_tokens", "Tokens scored or generated", pool)
        self._rate = Gauge("pmpo_tokens_per_second", "Tokens a second since the last observation", pool)
        self._replicas = Gauge("pmpo_replicas", "Live replicas by state", ("pool", "state"))
        self._idle = Gauge("pmpo_idle_share", "Share of the ready replicas' time without work", pool)
        self._loss = Gauge("pmpo_task_loss", "Best training loss in nats", task)
        self._round = Gauge("pmpo_task_round", "Round that the task is in", task)
        self._standing = Gauge("pmpo_tasks", "Tasks by state", ("state",))
        self._last: dict[str, tuple[PoolTotals, float]] = {}
        self._states: dict[str, set[str]] = {}
        self._progress: dict[str, Progress] = {}

    def observe_pool(self, role: str, stats: PoolTotals, now: float) -> None:
        """Publish the state of the pool of `role` at `now` (seconds of any steady clock)."""
        before, then = self._last.get(role, (None, now))
        self._last[role] = (stats, now)
        change = pool_change(before, stats, now - then)
        tags = {"pool": tag_value(role)}
        self._queued.set(stats.queued, tags)
        self._in_flight.set(stats.in_flight, tags)
        for counter, more in (
            (self._done, change.done),
            (self._retries, change.retries),
            (self._failed, change.failed),
            (self._tokens, change.tokens),
        ):
            # Ray's counters reject an increment of 0.
            if more > 0:
                counter.inc(more, tags)
        if change.tokens_per_second is not None:
            self._rate.set(change.tokens_per_second, tags)
        if change.idle_share is not None:
            self._idle.set(change.idle_share, tags)
        # A state that no replica is in any more has to be seen at 0, not at its last number.
        known = self._states.setdefault(role, set())
        known.update(stats.states)
        for state in known:
            self._replicas.set(stats.states.get(state, 0), {**tags, "state": tag_value(state)})

    def observe_task(self, progress: Progress) -> None:
        """Note the progress of a task, published from the next `show_tasks` on."""
        self._progress[progress.task] = progress

    def show_tasks(self) -> None:
        """Publish the progress of all tasks noted so far. A task has no loss before its first round is
        scored."""
        for name, progress in self._progress.items():
            tags = {"task": tag_value(name)}
            self._round.set(progress.round, tags)
            best = min(progress.losses, default=math.inf)
            if math.isfinite(best):
                self._loss.set(best, tags)
        for state, count in tasks_by_state(self._progress.values()).items():
            self._standing.set(count, {"state": state})


async def publish(
    metrics: Metrics,
    pools: Mapping[str, Callable[[], PoolTotals]],
    *,
    interval: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Publish all tasks and pools (by role) every `interval` seconds until cancelled, and once more at the
    end: Ray sends the last values when it is shut down. An interval of 20 s or more leaves gaps in the
    gauges.
    """

    def show() -> None:
        for role, stats in pools.items():
            metrics.observe_pool(role, stats(), clock())
        metrics.show_tasks()

    try:
        while True:
            show()
            await asyncio.sleep(interval)
    except asyncio.CancelledError:
        show()
        raise
