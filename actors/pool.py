"""A pool of replicas of one role: creates, watches, replaces and retires them, and hands out work.

Invariants:
- Every submitted unit resolves exactly once, with a result or one exception, whatever dies. A unit is in the
  backlog, or outstanding on one replica, whose call a task awaits to its end; where that call fails or is
  given up, the unit goes back to the backlog or fails.
- Every wait is bounded: a unit by its deadline, a start by `start_timeout`, and being without any working
  replica by `outage_timeout`, after which everything that waits gets an error that says what was missing.

All methods belong to one event loop; nothing here blocks it. Where replicas live is the launcher's concern.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Hashable
from dataclasses import dataclass
from typing import Any

from pmpo_ray.actors.autoscaling import Bounds, surplus, wanted
from pmpo_ray.actors.deadlines import Pace
from pmpo_ray.actors.dispatch import Backlog, Replica, Sent, Unit
from pmpo_ray.actors.handles import Launcher, ReplicaError, ReplicaLostError, ReplicaUnreachableError
from pmpo_ray.actors.health import WORKING, ReplicaEvent, ReplicaState
from pmpo_ray.actors.stats import PoolStats, ReplicaStats
from pmpo_ray.errors import DataError, EngineError, PmpoError, ResourceError
from pmpo_ray.types import EngineInfo

FAULTS_PER_UNIT = 3
"""Tries that failed while the unit was alone on its replica."""
MISHAPS_PER_UNIT = 8
"""Tries that failed because a node or a server went or could not be reached, which is hardly ever a unit's
fault."""
FAILED_CALLS_PER_REPLICA = 2
"""Failures in a row, between which it answered pings, after which a replica counts as broken."""
FAILED_STARTS = 5
"""Starts that failed in a row, before any succeeded, after which the pool gives up at once."""
LONGEST_RELAUNCH_DELAY = 30.0
PROBE_INTERVAL = 0.5
TICK = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What a pool is made of.

    `role` is the section of the configuration that it is named by in messages, `slots` how much a replica
    works on at a time. Times are in seconds: `grace` is allowed to every unit beyond what is usual,
    `relaunch_delay` doubles with every start that fails.
    """

    role: str
    launcher: Launcher
    bounds: Bounds
    slots: int
    start_timeout: float = 300.0
    outage_timeout: float = 600.0
    probe_timeout: float = 20.0
    grace: float = 60.0
    relaunch_delay: float = 1.0


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
        self._done = self._failed = self._retries = self._lost = self._tokens = 0
        self._gone_busy = self._gone_ready = 0.0
        self._failed_starts = 0
        self._last_loss = ""
        self._next_launch = self._working_at = self._loop.time()

    async def start(self) -> EngineInfo:
        """Start the fewest replicas, one at least, and return when the first is ready; others join as they
        come and as work waits.

        Raises what a replica's `start` raised, if that is a PmpoError (every replica would fail alike), and
        ResourceError where none could be started.
        """
        self._tick()
        return await asyncio.shield(self._first_start)

    async def submit(
        self,
        method: str,
        *args: object,
        weight: float,
        slots: int = 1,
        group: Hashable = None,
        urgency: int = 0,
    ) -> Any:
        """The answer of `method(*args)` on some replica. `weight` is the expected work in tokens; units of
        one `group` share a prefix; the more urgent of two waiting units goes first.

        Raises EngineError and DataError as the replica raised them, EngineError where the call failed on
        several replicas for other reasons, and the pool's own error where no replica is left. A caller
        that is cancelled takes its unit out of the queue; a unit already sent runs to its end.
        """
        if self._error is not None:
            raise self._error
        unit = Unit(method, args, weight, self._units, self._loop.create_future(), slots, group, urgency)
        unit.future.add_done_callback(lambda _: self._backlog.drop(unit))
        self._units += 1
        self._backlog.add(unit)
        self._grow()
        self._dispatch()
        return await unit.future

    def count_tokens(self, tokens: int) -> None:
        """Add to `PoolStats.tokens`; the pool does not look into answers."""
        self._tokens += tokens

    def stats(self) -> PoolStats:
        """What the pool is doing now."""
        now = self._loop.time()
        live = self._live.values()
        return PoolStats(
            queued=len(self._backlog),
            in_flight=sum(len(replica.outstanding) for replica in live),
            done=self._done,
            failed=self._failed,
            retries=self._retries,
            lost=self._lost,
            tokens=self._tokens,
            busy_seconds=self._gone_busy + sum(replica.busy(now) for replica in live),
            ready_seconds=self._gone_ready + sum(replica.able(now) for replica in live),
            replicas=tuple(
                ReplicaStats(replica.id, replica.state, replica.where, len(replica.outstanding), replica.done)
                for replica in live
            ),
        )

    async def close(self) -> None:
        """End all replicas; whoever still waits gets a ResourceError. May be called again."""
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
            self._failed += 1
            unit.fail(error)
        except ReplicaError as error:
            sent = self._release(unit, replica)
            self._requeue(unit, replica, sent, error)
            self._suspect(replica, error)
        else:
            sent = self._answered(unit, replica)
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
        self._done += 1
        return sent

    def _requeue(self, unit: Unit, replica: Replica, sent: Sent, error: ReplicaError) -> None:
        """Give the unit another try, or fail it."""
        unit.tried_on.append(replica.id)
        if isinstance(error, ReplicaUnreachableError) or (
            isinstance(error, ReplicaLostError) and error.blameless
        ):
            unit.mishaps += 1
        else:
            unit.suspected = True
            # Beside others it may be blameless; the next try, alone, will show.
            unit.faults += not sent.shared
        if self._error is not None:
            unit.fail(self._error)
        elif unit.faults >= FAULTS_PER_UNIT or unit.mishaps >= MISHAPS_PER_UNIT:
            self._failed += 1
            tries = len(unit.tried_on)
            self._note(logging.WARNING, "unit failed", replica, tries=tries, reason=str(error))
            unit.fail(
                EngineError(f"{self._spec.role}: {tries} tries of one request failed, the last one: {error}")
            )
        elif not unit.future.done():
            self._retries += 1
            self._backlog.add(unit)

    # Replicas

    def _suspect(self, replica: Replica, error: ReplicaError) -> None:
        """A call failed: find out whether the replica is fit for work."""
        if not replica.live:
            return
        if isinstance(error, ReplicaLostError):
            self._lose(replica, error)
            return
        first = replica.state is ReplicaState.READY
        replica.advance(ReplicaEvent.CALL_FAILED)
        if first:
            # What else was in flight fails with it, and counts as the same failure.
            replica.failures += 1
            self._spawn(self._probe(replica, error))

    async def _probe(self, replica: Replica, error: ReplicaError) -> None:
        """Give a suspect replica work again, or replace it."""
        loss = await self._unanswered(replica)
        if not replica.live:
            return
        if loss is None and replica.failures < FAILED_CALLS_PER_REPLICA:
            replica.advance(ReplicaEvent.PROBE_ANSWERED)
            self._dispatch()
        else:
            self._lose(replica, loss or ReplicaLostError(str(error)))

    async def _unanswered(self, replica: Replica) -> ReplicaLostError | None:
        """Why the replica does not answer a ping; None if it does. One that is unreachable is asked again
        until the timeout: its node may come back, and it takes a while to tell that a node is lost."""
        try:
            async with asyncio.timeout(self._spec.probe_timeout):
                while True:
                    try:
                        await replica.handle.ping()
                    except ReplicaUnreachableError:
                        await asyncio.sleep(PROBE_INTERVAL)
                    else:
                        return None
        except TimeoutError:
            return ReplicaLostError(f"no answer for {self._spec.probe_timeout:g} s", blameless=True)
        except ReplicaError as error:
            return error if isinstance(error, ReplicaLostError) else ReplicaLostError(str(error))

    async def _bring_up(self, replica: Replica) -> None:
        """Wait for a place, however long that takes, then for the model."""
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
        self._next_launch = self._loop.time() + min(delay, LONGEST_RELAUNCH_DELAY)
        if self._failed_starts >= FAILED_STARTS and not self._first_start.done():
            self._fail(
                ResourceError(
                    f"{self._spec.role}: no replica could be started, {self._failed_starts} tries failed, "
                    f"the last one: {error}"
                )
            )
        self._lose(replica, error)

    def _lose(self, replica: Replica, error: ReplicaError) -> None:
        """Give a replica up; its units go elsewhere, and another one comes in its place."""
        if not replica.live:
            return
        self._lost += 1
        self._last_loss = str(error)
        self._note(logging.WARNING, "replica lost", replica, reason=str(error))
        self._end(replica, ReplicaEvent.LOST)
        for unit in [*replica.outstanding]:
            # Its call may never come to an end now, and the unit must not wait for it.
            if (call := self._calls.get(unit)) is not None:
                call.cancel()
            self._requeue(unit, replica, self._release(unit, replica), error)
        self._grow()
        self._dispatch()

    def _grow(self) -> None:
        """Ask for the replicas that are wanted, unless the last ones failed to start just now."""
        now = self._loop.time()
        if self._error is not None or now < self._next_launch:
            return
        count = wanted(self._spec.bounds, self._demand(), self._spec.slots)
        if not self._first_start.done():
            count = max(count, 1)
        for _ in range(count - len(self._live)):
            replica = Replica(self._launched, self._spec.launcher.launch(), idle_since=now)
            self._launched += 1
            self._live[replica.id] = replica
            self._note(logging.INFO, "replica asked for", replica)
            self._starts[replica] = self._spawn(self._bring_up(replica))

    def _shrink(self) -> None:
        if not self._first_start.done():
            return
        now, demand = self._loop.time(), self._demand()
        for replica in surplus(self._spec.bounds, [*self._live.values()], demand, self._spec.slots, now):
            self._note(logging.INFO, "replica retired", replica)
            self._end(replica, ReplicaEvent.RETIRE)

    def _demand(self) -> int:
        """Slots of all work that is waiting or outstanding."""
        return self._backlog.slots + self._slots_out

    def _end(self, replica: Replica, event: ReplicaEvent) -> None:
        now = self._loop.time()
        self._gone_busy += replica.busy(now)
        self._gone_ready += replica.able(now)
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
        """What has to be looked at from time to time: units that are overdue, replicas that are missing or
        idle, a pool that has been without replicas for too long."""
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
            missing = f"the last one was lost: {self._last_loss}" if self._last_loss else "none has started"
        else:
            missing = f"the cluster had no room for one: {spec.launcher.missing()}"
        return (
            f"{spec.role}: no working replica for {spec.outage_timeout:g} s, {missing}; lower "
            f"{spec.role}.cpus or {spec.role}.gpus, add nodes, or raise ray.outage_timeout"
        )

    def _give_up_overdue(self) -> None:
        now = self._loop.time()
        for replica in [*self._live.values()]:
            for unit, sent in replica.outstanding.items():
                # Never later than it was, and sooner once something was measured.
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
        """From here on nothing is sent; what waits, and what is submitted later, gets `error`. The first
        error stays."""
        if self._error is not None:
            return
        self._error = error
        if self._ticks is not None:
            self._ticks.cancel()
        self._backlog.fail_all(error)
        if not self._first_start.done():
            self._first_start.set_exception(error)
            # The error is for whoever awaits `start`; nobody may be doing so.
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
            # A mistake in the pool or in a launcher: loud, and nobody is left waiting.
            self._fail(error)
