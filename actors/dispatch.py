"""The assignment of units to replicas.

Invariants: a unit is in one place only, waiting or outstanding on one replica; only READY replicas get work;
a unit that may have broken a replica runs alone from then on, so that it cannot take blameless units down
again; no replica is idle while a unit waits that it may take.

Order: the most urgent units go first, of those the longest, to the replica with the least outstanding work.
A unit is urgent if many rounds wait for it: a task that falls behind would run alone at the end, with most
replicas idle. Units of one group (chunks of one candidate) go to the replica that began the group and has its
prefix in the cache, unless another replica would be idle. A replica gets more than it works on at a time only
while there is plenty of work for all replicas: a sent unit cannot be taken back for a replica that becomes
idle.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from pmpo_ray.actors.handles import ReplicaHandle
from pmpo_ray.actors.health import FINAL, ReplicaEvent, ReplicaState, advance, takes_work
from pmpo_ray.actors.units import Rank, Unit


@dataclass(slots=True)
class Sent:
    """A sent unit: the replica's load at the time, this unit included; the times at which it was sent and is
    due; `shared` if another unit was outstanding on the replica at the same time."""

    load: float
    at: float
    due: float = float("inf")
    shared: bool = False


@dataclass(slots=True, eq=False)
class Replica:
    """A replica as the pool sees it.

    `load` and `slots` are the weight and the slots of its outstanding units, `group` is the group of the unit
    that it got last; `failures` counts failed calls since the last answered one; `idle_since` is the time at
    which it last became idle.
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
        """True if the replica may get one more fresh unit when at most `slots` slots may be taken. One unit
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
        """The seconds during which it had work, up to now."""
        return self._busy_seconds + (now - self._busy_since if self.outstanding else 0.0)

    def able(self, now: float) -> float:
        """The seconds since it was first able to work."""
        return 0.0 if self.ready_since is None else now - self.ready_since


@dataclass(slots=True, eq=False)
class _Group:
    """The waiting units of one group by rank. `owner` is the replica that began the group."""

    key: Hashable
    heap: list[tuple[Rank, Unit]] = field(default_factory=list)
    owner: int | None = None

    def top(self) -> Unit | None:
        """The first unit that is still waiting."""
        while self.heap and not self.heap[0][1].waiting:
            heapq.heappop(self.heap)
        return self.heap[0][1] if self.heap else None


class Backlog:
    """The waiting units. Units that failed before go first, then the most urgent, the longest, the oldest."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group] = {}
        # The units of all groups that no replica has begun. Entries of other groups are skipped when they
        # come up; a unit that came back may have two entries.
        self._fresh: list[tuple[Rank, Unit]] = []
        self._failed: list[Unit] = []
        self._waiting = 0
        self.slots = 0

    def __len__(self) -> int:
        """The number of units whose caller still waits."""
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
        """Forget a unit whose caller has gone. Does nothing if the unit is not waiting."""
        if unit.waiting:
            self._took(unit)

    def disown(self, replica: int) -> None:
        """Let any replica continue the groups that `replica`, which is gone, had begun."""
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
        """Assign all units that can run now; afterwards they are outstanding on their replicas. A replica
        works on `slots` slots at a time and gets twice as many while more work waits than all replicas
        could begin."""
        ready = [replica for replica in replicas if takes_work(replica.state)]
        if not self._waiting or not ready:
            return []
        total_slots = slots * len(ready)
        assigned = self._assign_failed(ready, now)
        free = [self._turn(replica) for replica in ready if replica.has_room(2 * slots)]
        heapq.heapify(free)
        while free:
            *_, replica = heapq.heappop(free)
            if not replica.has_room(2 * slots if self.slots >= total_slots else slots):
                continue
            unit = self._pop_for(replica)
            if unit is None:
                break
            replica.take(unit, now)
            assigned.append((unit, replica))
            heapq.heappush(free, self._turn(replica))
        return assigned

    def _turn(self, replica: Replica) -> tuple[float, bool, int, Replica]:
        """The key by which replicas choose in turn: the least loaded first, of equals one whose cache is warm
        for a waiting unit."""
        cold = replica.group is None or replica.group not in self._groups
        return replica.load, cold, replica.id, replica

    def _assign_failed(self, ready: list[Replica], now: float) -> list[tuple[Unit, Replica]]:
        """Assign units that failed before to idle replicas, if possible to replicas that did not fail them. A
        replica that such a unit waits for is removed from `ready`: it gets no other work and so drains."""
        assigned: list[tuple[Unit, Replica]] = []
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
                assigned.append((unit, replica))
        return assigned

    def _pop_for(self, replica: Replica) -> Unit | None:
        """The next unit for `replica`: of the group in its cache, else of a group that no replica has begun,
        else of the group with the most units left."""
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
            # Later units of this key begin a new group; the replica's cache stays warm for them.
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
