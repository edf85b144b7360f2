"""Which unit goes to which replica.

Invariants: a unit is in one place only, waiting or outstanding on one replica; only READY replicas get work;
a unit that may have broken a replica runs alone from then on, so that it cannot take the blameless ones
beside it down again; no replica is without work while a unit waits that it may take.

Order: the most urgent units first, of those the longest, to the replica with the least outstanding work.
Urgent is what many rounds wait for: tasks that fell behind would go on alone at the end, with most replicas
idle. Units of one group (chunks of one candidate) go to the replica that began the group, whose cached prefix
they share, unless another replica would be idle. A replica gets work beyond what it does at a time only while
there is plenty for all: what is sent cannot be taken back for a replica that has become idle.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pmpo_ray.actors.handles import ReplicaHandle
from pmpo_ray.actors.health import FINAL, ReplicaEvent, ReplicaState, advance, takes_work

_Rank = tuple[int, float, int]


@dataclass(slots=True, eq=False)
class Unit:
    """One call to be made on some replica.

    `weight` is its expected work in tokens, `urgency` how many rounds wait for it, `slots` how many of a
    replica's slots it takes, `group` what units with a common prefix have in common. `tried_on` are the ids
    of the replicas that failed it: with `mishaps` that it cannot have caused, or with it `suspected`. Its
    `faults` are those that happened while it was alone there, which no other unit can have caused.
    """

    method: str
    args: tuple[object, ...]
    weight: float
    order: int
    future: asyncio.Future[Any]
    slots: int = 1
    group: Hashable = None
    urgency: int = 0
    waiting: bool = False
    tried_on: list[int] = field(default_factory=list)
    suspected: bool = False
    faults: int = 0
    mishaps: int = 0

    @property
    def key(self) -> Hashable:
        """Its group; one of its own where it has none."""
        return (None, self.order) if self.group is None else self.group

    @property
    def rank(self) -> _Rank:
        """Units of lower rank go first."""
        return -self.urgency, -self.weight, self.order

    def resolve(self, result: object) -> None:
        """Hand `result` to the caller, unless the caller has gone."""
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """Hand `error` to the caller, unless the caller has gone."""
        if not self.future.done():
            self.future.set_exception(error)
            # The error is for whoever awaits the unit; an interruption may come before anybody does.
            self.future.exception()


@dataclass(slots=True)
class Sent:
    """A unit on its way: the replica's load at the time, this unit included, when it was sent and is due, and
    whether another unit was there with it."""

    load: float
    at: float
    due: float = float("inf")
    shared: bool = False


@dataclass(slots=True, eq=False)
class Replica:
    """What the pool knows of one replica.

    `load` and `slots` are the weight and the slots of its outstanding units, `group` is the group of the unit
    that it got last; `failures` counts failed calls since the last answered one; `idle_since` is when it last
    became idle.
    """

    id: int
    handle: ReplicaHandle
    state: ReplicaState = ReplicaState.PENDING
    where: str = ""
    outstanding: dict[Unit, Sent] = field(default_factory=dict)
    group: Hashable = None
    load: float = 0.0
    slots: int = 0
    failures: int = 0
    done: int = 0
    ready_since: float | None = None
    idle_since: float = 0.0
    _suspects: int = 0
    _busy_seconds: float = 0.0
    _busy_since: float = 0.0

    @property
    def live(self) -> bool:
        return self.state not in FINAL

    def advance(self, event: ReplicaEvent) -> None:
        self.state = advance(self.state, event)

    def has_room(self, slots: int) -> bool:
        """Whether one more fresh unit may be given where a replica may have `slots` slots taken. One unit
        always fits, however many slots it takes."""
        if not takes_work(self.state):
            return False
        if not self.outstanding:
            return True
        return self.failures == 0 and self._suspects == 0 and self.slots < slots

    def take(self, unit: Unit, now: float) -> None:
        if not self.outstanding:
            self._busy_since = now
        self.load += unit.weight
        self.slots += unit.slots
        self._suspects += unit.suspected
        shared = bool(self.outstanding)
        for other in self.outstanding.values():
            other.shared = True
        self.outstanding[unit] = Sent(self.load, now, shared=shared)
        self.group = unit.group

    def release(self, unit: Unit, now: float) -> Sent:
        sent = self.outstanding.pop(unit)
        self.load -= unit.weight
        self.slots -= unit.slots
        self._suspects -= unit.suspected
        if not self.outstanding:
            # Sums of floats drift.
            self.load = 0.0
            self._busy_seconds += now - self._busy_since
            self.idle_since = now
        return sent

    def busy(self, now: float) -> float:
        """Seconds during which it had work, up to now."""
        return self._busy_seconds + (now - self._busy_since if self.outstanding else 0.0)

    def able(self, now: float) -> float:
        """Seconds since it could work for the first time."""
        return 0.0 if self.ready_since is None else now - self.ready_since


@dataclass(slots=True, eq=False)
class _Group:
    """The waiting units of one group by rank. `owner` is the replica that began it."""

    key: Hashable
    heap: list[tuple[_Rank, Unit]] = field(default_factory=list)
    owner: int | None = None

    def top(self) -> Unit | None:
        """The first unit that still waits."""
        while self.heap and not self.heap[0][1].waiting:
            heapq.heappop(self.heap)
        return self.heap[0][1] if self.heap else None


class Backlog:
    """The waiting units. Those that failed before go first, then the most urgent, the longest, the oldest."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group] = {}
        # The units of all groups that no replica has begun. Entries of others are passed over when they
        # come up; a unit that came back may have two.
        self._fresh: list[tuple[_Rank, Unit]] = []
        self._failed: list[Unit] = []
        self._waiting = 0
        self.slots = 0

    def __len__(self) -> int:
        """Units whose caller still waits."""
        return self._waiting

    def add(self, unit: Unit) -> None:
        unit.waiting = True
        self._waiting += 1
        self.slots += unit.slots
        if unit.suspected:
            self._failed.append(unit)
            return
        group = self._groups.setdefault(unit.key, _Group(unit.key))
        heapq.heappush(group.heap, (unit.rank, unit))
        if group.owner is None:
            heapq.heappush(self._fresh, (unit.rank, unit))

    def drop(self, unit: Unit) -> None:
        """Forget a unit whose caller has gone; nothing happens to one that does not wait."""
        if unit.waiting:
            self._took(unit)

    def disown(self, replica: int) -> None:
        """Let any replica go on with what `replica`, which is gone, had begun."""
        for group in self._groups.values():
            if group.owner == replica:
                group.owner = None
                for entry in group.heap:
                    heapq.heappush(self._fresh, entry)

    def fail_all(self, error: Exception) -> None:
        """Empty the backlog, every caller getting `error`."""
        grouped = (unit for group in self._groups.values() for _, unit in group.heap)
        for unit in [*self._failed, *grouped]:
            if unit.waiting:
                unit.waiting = False
                unit.fail(error)
        self._groups, self._fresh, self._failed = {}, [], []
        self._waiting = self.slots = 0

    def assign(self, replicas: Iterable[Replica], slots: int, now: float) -> list[tuple[Unit, Replica]]:
        """Give out all that can run now. A replica works on `slots` slots at a time and gets twice as much
        while more waits than all replicas together could begin. The units are outstanding on their replicas
        afterwards."""
        ready = [replica for replica in replicas if takes_work(replica.state)]
        if not self._waiting or not ready:
            return []
        together = slots * len(ready)
        given = self._assign_failed(ready, now)
        free = [self._turn(replica) for replica in ready if replica.has_room(2 * slots)]
        heapq.heapify(free)
        while free:
            *_, replica = heapq.heappop(free)
            if not replica.has_room(2 * slots if self.slots >= together else slots):
                continue
            unit = self._pop_for(replica)
            if unit is None:
                break
            replica.take(unit, now)
            given.append((unit, replica))
            heapq.heappush(free, self._turn(replica))
        return given

    def _turn(self, replica: Replica) -> tuple[float, bool, int, Replica]:
        """When a replica comes to choose: the least loaded first, of equals one that is warm for a unit."""
        cold = replica.group is None or replica.group not in self._groups
        return replica.load, cold, replica.id, replica

    def _assign_failed(self, ready: list[Replica], now: float) -> list[tuple[Unit, Replica]]:
        """Give units that failed before to idle replicas, if possible to such that did not fail them. A
        replica that one of them waits for is taken out of `ready`: it gets nothing else and so drains."""
        given: list[tuple[Unit, Replica]] = []
        failed, self._failed = self._failed, []
        for unit in sorted(failed, key=lambda unit: unit.rank):
            if not unit.waiting:
                continue
            choices = [replica for replica in ready if replica.id not in unit.tried_on] or ready
            if not choices:
                self._failed.append(unit)
                continue
            replica = min(choices, key=lambda replica: (replica.load, replica.id))
            ready.remove(replica)
            if replica.outstanding:
                self._failed.append(unit)
            else:
                self._took(unit)
                replica.take(unit, now)
                given.append((unit, replica))
        return given

    def _pop_for(self, replica: Replica) -> Unit | None:
        """The next unit for `replica`: of the group that it is warm for, else of one that nobody has begun,
        else of the one that has the most left."""
        group = None if replica.group is None else self._groups.get(replica.group)
        if group is None or group.top() is None:
            group = self._next_fresh() or self._fullest()
        unit = None if group is None else group.top()
        if group is None or unit is None:
            return None
        if group.owner is None:
            group.owner = replica.id
        self._took(unit)
        if group.top() is None:
            # Later units of this key begin a new group; the replica stays warm for them.
            del self._groups[group.key]
        return unit

    def _next_fresh(self) -> _Group | None:
        while self._fresh:
            _, unit = self._fresh[0]
            group = self._groups.get(unit.key) if unit.waiting else None
            if group is not None and group.owner is None:
                return group
            heapq.heappop(self._fresh)
        return None

    def _fullest(self) -> _Group | None:
        waiting = [group for group in self._groups.values() if group.top() is not None]
        return max(waiting, key=lambda group: len(group.heap), default=None)

    def _took(self, unit: Unit) -> None:
        unit.waiting = False
        self._waiting -= 1
        self.slots -= unit.slots
