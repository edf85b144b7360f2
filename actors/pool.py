"""A pool of replicas of one role: it creates, watches, replaces and retires replicas, and hands out work.

Invariants:
- Every submitted unit resolves exactly once, with a result or one exception, whatever dies. A unit is in the
  backlog, or it is outstanding on one replica and a task awaits the call. When the call fails or is given up,
  the unit goes back to the backlog or fails.
- Every wait is bounded: a unit by its deadline, a start by `start_timeout`, and the time without a working
  replica by `outage_timeout`. After that, every waiting unit gets an error that says what was missing.

All methods belong to one event loop and never block it. The launcher decides where replicas live.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, TypeVar

from pmpo_ray.actors.autoscaling import surplus, target_count
from pmpo_ray.actors.deadlines import Pace
from pmpo_ray.actors.dispatch import Backlog, Replica, Sent
from pmpo_ray.actors.handles import ReplicaError, ReplicaLostError
from pmpo_ray.actors.health import WORKING, ReplicaEvent, ReplicaState
from pmpo_ray.actors.pool_spec import PoolSpec
from pmpo_ray.actors.probing import probe
from pmpo_ray.actors.stats import PoolStats, Totals
from pmpo_ray.actors.units import Unit
from pmpo_ray.errors import DataError, EngineError, PmpoError, ResourceError
from pmpo_ray.types import EngineInfo

T = TypeVar("T")

FAILED_CALLS_PER_REPLICA = 2
"""A replica counts as broken after so many failed calls in a row, even if it answers pings in between."""
FAILED_STARTS = 5
"""The pool fails at once after so many failed starts in a row before the first success."""
MAX_RELAUNCH_DELAY = 30.0
"""Seconds."""
TICK = 1.0
"""Seconds between two looks at deadlines, missing replicas and idle replicas."""

_log = logging.getLogger(__name__)


class Pool:
    """The replicas of one role."""

    def __init__(self, spec: PoolSpec) -> None:
        self._spec = spec
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(spec.grace)
        self._backlog = Backlog()
        self._live: dict[int, Replica] = {}
        self._first_start: asyncio.Future[EngineInfo] = self._loop.create_future()
        self._calls: dict[Unit, asyncio.Task[None]] = {}
        self._starts: dict[Replica, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: Exception | None = None
        self._ticks: asyncio.TimerHandle | None = None
        self._launched = self._units = self._slots_out = 0
        self._totals = Totals()
        self._failed_starts = 0
        self._last_loss = ""
        self._next_launch = self._working_at = self._loop.time()

    async def start(self) -> EngineInfo:
        """Start the minimum number of replicas, at least one, and return when the first is ready. The others
        join later, and more are started when work waits.

        Raises the PmpoError of a replica's `start`, since every replica would fail alike, and ResourceError
        if no replica could be started.
        """
        self._tick()
        return await asyncio.shield(self._first_start)

    async def submit(
        self,
        method: Callable[..., Awaitable[T]],
        *args: object,
        weight: float,
        slots: int = 1,
        group: Hashable = None,
        urgency: int = 0,
    ) -> T:
        """The answer of `method`, a method of the replicas' actor class, called with `args` on some replica.

        `weight` is the expected work in tokens (0: the model computes nothing); units of one `group` share a
        prefix; the more urgent of two waiting units goes first. An argument may be a reference that the
        launcher's replicas resolve.

        Raises the EngineError or DataError of the replica, EngineError if the call failed on several replicas
        for other reasons, and the pool's error if no replica is left. A caller that is cancelled takes its
        unit out of the queue; a unit already sent runs to its end.
        """
        if self._error is not None:
            raise self._error
        future = self._loop.create_future()
        unit = Unit(method.__name__, args, weight, self._units, future, slots, group, urgency)
        unit.future.add_done_callback(lambda _: self._backlog.drop(unit))
        self._units += 1
        self._backlog.add(unit)
        self._grow()
        self._dispatch()
        answer: T = await unit.future
        return answer

    def count_tokens(self, tokens: int) -> None:
        """Add to `PoolStats.tokens`; the pool does not look into answers."""
        self._totals.tokens += tokens

    def stats(self) -> PoolStats:
        """Statistics of the pool at this moment."""
        return self._totals.snapshot(len(self._backlog), self._live.values(), self._loop.time())

    async def close(self) -> None:
        """End all replicas; every waiting caller gets a ResourceError. May be called again."""
        self._fail(
            ResourceError(f"the {self._spec.role} pool was closed with work still waiting; start a new one")
        )
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for replica in [*self._live.values()]:
            self._end(replica, ReplicaEvent.RETIRE)

    # Work

    def _dispatch(self) -> None:
        if self._error is not None or not len(self._backlog):
            return
        now = self._loop.time()
        for unit, replica in self._backlog.assign(self._live.values(), self._spec.slots, now):
            self._slots_out += unit.slots
            self._calls[unit] = self._spawn(self._run(unit, replica))

    async def _run(self, unit: Unit, replica: Replica) -> None:
        """Make one call and see the unit resolved or requeued."""
        try:
            result = await replica.handle.call(unit.method, *unit.args)
        except (EngineError, DataError) as error:
            self._answered(unit, replica)
            self._totals.failed += 1
            unit.fail(error)
        except ReplicaError as error:
            sent = self._release(unit, replica)
            self._requeue(unit, replica, sent, error)
            self._suspect(replica, error)
        else:
            sent = self._answered(unit, replica)
            if unit.weight:
                self._pace.observe(sent.load, self._loop.time() - sent.at)
            unit.resolve(result)
        self._dispatch()

    def _release(self, unit: Unit, replica: Replica) -> Sent:
        self._calls.pop(unit, None)
        self._slots_out -= unit.slots
        return replica.release(unit, self._loop.time())

    def _answered(self, unit: Unit, replica: Replica) -> Sent:
        sent = self._release(unit, replica)
        replica.done += 1
        replica.failures = 0
        self._totals.done += 1
        return sent

    def _requeue(self, unit: Unit, replica: Replica, sent: Sent, error: ReplicaError) -> None:
        """Give the unit another try, or fail it."""
        unit.note_failure(replica.id, error, shared=sent.shared)
        if self._error is not None:
            unit.fail(self._error)
        elif unit.exhausted:
            self._totals.failed += 1
            tries = len(unit.tried_on)
            self._note(logging.WARNING, "unit failed", replica, tries=tries, reason=str(error))
            unit.fail(
                EngineError(f"{self._spec.role}: {tries} tries of one request failed, the last one: {error}")
            )
        elif not unit.future.done():
            self._totals.retries += 1
            self._backlog.add(unit)

    # Replicas

    def _suspect(self, replica: Replica, error: ReplicaError) -> None:
        """Handle a failed call: find out if the replica is fit for work."""
        if not replica.live:
            return
        if isinstance(error, ReplicaLostError):
            self._lose(replica, error)
            return
        first = replica.state is ReplicaState.READY
        replica.advance(ReplicaEvent.CALL_FAILED)
        if first:
            # Other calls in flight fail with it and count as the same failure.
            replica.failures += 1
            self._spawn(self._probe(replica, error))

    async def _probe(self, replica: Replica, error: ReplicaError) -> None:
        """Give a suspect replica work again, or replace it."""
        loss = await probe(replica.handle, self._spec.probe_timeout)
        if not replica.live:
            return
        if loss is None and replica.failures < FAILED_CALLS_PER_REPLICA:
            replica.advance(ReplicaEvent.PROBE_ANSWERED)
            self._dispatch()
        else:
            self._lose(replica, loss or ReplicaLostError(str(error)))

    async def _bring_up(self, replica: Replica) -> None:
        """Wait for a place on a node, however long that takes, then for the model."""
        seconds = self._spec.start_timeout
        try:
            replica.where = await replica.handle.ping()
            replica.advance(ReplicaEvent.PLACED)
            async with asyncio.timeout(seconds):
                info = await replica.handle.start()
        except PmpoError as error:
            if not self._first_start.done():
                self._fail(error)
            self._start_failed(replica, ReplicaLostError(str(error)))
        except ReplicaError as error:
            self._start_failed(replica, error)
        except TimeoutError:
            reason = f"it was still loading after {seconds:g} s; raise ray.start_timeout"
            if not self._first_start.done() and not self._working():
                self._fail(ResourceError(f"{self._spec.role}: no replica could be started: {reason}"))
            self._start_failed(replica, ReplicaLostError(reason))
        else:
            if self._first_start.done() and info.encoding != self._first_start.result().encoding:
                reason = "it makes other token ids of prompts: its chat template or tokenizer differs"
                self._start_failed(replica, ReplicaLostError(reason))
            else:
                self._started(replica, info)

    def _started(self, replica: Replica, info: EngineInfo) -> None:
        self._starts.pop(replica, None)
        replica.advance(ReplicaEvent.STARTED)
        replica.ready_since = replica.idle_since = self._loop.time()
        self._failed_starts = 0
        self._next_launch = self._loop.time()
        if not self._first_start.done():
            self._first_start.set_result(info)
        self._note(logging.INFO, "replica ready", replica)
        self._dispatch()

    def _start_failed(self, replica: Replica, error: ReplicaError) -> None:
        self._starts.pop(replica, None)
        self._failed_starts += 1
        delay = self._spec.relaunch_delay * 2.0 ** (self._failed_starts - 1)
        self._next_launch = self._loop.time() + min(delay, MAX_RELAUNCH_DELAY)
        if self._failed_starts >= FAILED_STARTS and not self._first_start.done():
            self._fail(
                ResourceError(
                    f"{self._spec.role}: no replica could be started, {self._failed_starts} tries failed, "
                    f"the last one: {error}"
                )
            )
        self._lose(replica, error)

    def _lose(self, replica: Replica, error: ReplicaError) -> None:
        """Give a replica up: its units go to other replicas, and a new one replaces it."""
        if not replica.live:
            return
        self._totals.lost += 1
        self._last_loss = str(error)
        self._note(logging.WARNING, "replica lost", replica, reason=str(error))
        self._end(replica, ReplicaEvent.LOST)
        for unit in [*replica.outstanding]:
            # The call may never end now, and the unit must not wait for it.
            if (call := self._calls.get(unit)) is not None:
                call.cancel()
            self._requeue(unit, replica, self._release(unit, replica), error)
        self._grow()
        self._dispatch()

    def _grow(self) -> None:
        """Launch the missing replicas, unless the last start failed a moment ago."""
        now = self._loop.time()
        if self._error is not None or now < self._next_launch:
            return
        count = target_count(self._spec.bounds, self._demand(), self._spec.slots)
        if not self._first_start.done():
            count = max(count, 1)
        for _ in range(count - len(self._live)):
            replica = Replica(self._launched, self._spec.launcher.launch(), idle_since=now)
            self._launched += 1
            self._live[replica.id] = replica
            self._note(logging.INFO, "replica requested", replica)
            self._starts[replica] = self._spawn(self._bring_up(replica))

    def _shrink(self) -> None:
        if not self._first_start.done():
            return
        now, demand = self._loop.time(), self._demand()
        for replica in surplus(self._spec.bounds, [*self._live.values()], demand, self._spec.slots, now):
            self._note(logging.INFO, "replica retired", replica)
            self._end(replica, ReplicaEvent.RETIRE)

    def _demand(self) -> int:
        """The slots of all waiting and outstanding work."""
        return self._backlog.slots + self._slots_out

    def _end(self, replica: Replica, event: ReplicaEvent) -> None:
        self._totals.end(replica, self._loop.time())
        replica.advance(event)
        del self._live[replica.id]
        self._backlog.disown(replica.id)
        if (starting := self._starts.pop(replica, None)) is not None:
            starting.cancel()
        replica.handle.end()

    def _working(self) -> bool:
        return any(replica.state in WORKING for replica in self._live.values())

    # Time

    def _tick(self) -> None:
        """Look for overdue units, for missing and idle replicas, and for an outage that lasts too long."""
        if self._error is not None:
            return
        self._ticks = self._loop.call_later(TICK, self._tick)
        self._give_up_overdue()
        self._grow()
        self._shrink()
        now = self._loop.time()
        needed = len(self._backlog) > 0 or not self._first_start.done()
        if self._working() or not needed:
            self._working_at = now
        elif now - self._working_at >= self._spec.outage_timeout:
            self._fail(ResourceError(self._outage()))

    def _outage(self) -> str:
        spec = self._spec
        placed = any(replica.state is not ReplicaState.PENDING for replica in self._live.values())
        if placed or self._failed_starts or not self._live:
            reason = f"the last one was lost: {self._last_loss}" if self._last_loss else "none has started"
        else:
            reason = f"the cluster had no room for one: {spec.launcher.missing()}"
        return (
            f"{spec.role}: no working replica for {spec.outage_timeout:g} s, {reason}; lower "
            f"{spec.role}.cpus or {spec.role}.gpus, add nodes, or raise ray.outage_timeout"
        )

    def _give_up_overdue(self) -> None:
        now = self._loop.time()
        for replica in [*self._live.values()]:
            for unit, sent in replica.outstanding.items():
                # A deadline never moves back; it moves forward once something was measured.
                sent.due = min(sent.due, sent.at + self._pace.allowance(sent.load, len(unit.tried_on)))
            overdue = [sent for sent in replica.outstanding.values() if sent.due < now]
            if overdue:
                seconds = now - overdue[0].at
                self._lose(replica, ReplicaLostError(f"no answer for {seconds:.0f} s, far longer than usual"))

    def _note(self, level: int, event: str, replica: Replica, **fields: object) -> None:
        known = {"pool": self._spec.role, "replica": replica.id, "where": replica.where}
        _log.log(level, event, extra={"fields": {**known, **fields}})

    # Ends

    def _fail(self, error: Exception) -> None:
        """End the pool's work: nothing more is sent, and every unit that waits or is submitted later gets
        `error`. Only the first error counts."""
        if self._error is not None:
            return
        self._error = error
        if self._ticks is not None:
            self._ticks.cancel()
        self._backlog.fail_all(error)
        if not self._first_start.done():
            self._first_start.set_exception(error)
            # Mark the error as retrieved: nobody may be awaiting `start`.
            self._first_start.exception()
        for unit in [*self._calls]:
            unit.fail(error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            # A bug in the pool or a launcher: it reaches every caller, and nobody is left waiting.
            self._fail(error)
