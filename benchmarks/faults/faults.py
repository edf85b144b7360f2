"""The kinds of faults, their order, and the evidence that one took effect.

Invariants: the order of the kinds and the choice of the victims depend on the seed and on the available
victims; a fault counts only when it took effect: the pool gave up the replica that it hit, the engine took
the order, or the driver died of it. A loss is evidence of one fault only. Signals go only to processes whose
parent is a raylet of this benchmark's cluster.

A pool gives a unit up after three faults that the unit may have caused itself (`actors/units.py`), since a
request may break every replica. A unit that failed once goes first, so several faults at short intervals
would all hit the same unit. Therefore a pool is hit again only after AFTER further answers.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.lives import Driver, Loss, Process, Replica, process
from benchmarks.faults.nodes import Node, Nodes

DECK = {
    "kill -9 of a scorer": 4,
    "kill -9 of a rewriter": 2,
    "scorer stopped (SIGSTOP)": 1,
    "rewriter stopped (SIGSTOP)": 1,
    "node killed": 1,
    "node removed gracefully": 1,
    "call that never returns": 2,
    "call that raises": 3,
    "process ends within a call": 2,
    "engine fails to start": 2,
    "driver kill -9": 1,
}
"""Every kind, and how often it comes in 20 faults."""
ORDERS = {
    "call that never returns": "hang",
    "call that raises": "error",
    "process ends within a call": "die",
    "engine fails to start": "start",
}
"""The order that `pmpo_ray.engines.simulated.faults` takes, by kind."""
DRIVER = "driver kill -9"
START = "engine fails to start"
PENDING = 3
"""Faults that may be on their way to take effect at once."""
WAITING = 3
"""Kinds that may wait for their moment while others go before them."""
POOLS = {"scorer": "score", "rewriter": "generate"}
"""Each pool and the method of its units."""
AFTER = {"scorer": 12, "rewriter": 6}
"""More than the other replicas have on hand, which they answer before they take a unit that was hit."""
PACED = {"scorer": 15, "rewriter": 12}
"""Answers after which each pool has measured how long its units take, those that were in flight before
included. Until then a unit may take an hour (`pmpo_ray.actors.deadlines`), so a hang would not be noticed."""
EFFECT_SECONDS = 30.0
"""After which a fault that showed no effect does not count."""
_OVERDUE = "far longer than usual"
_FAILED_START = "a failed start was ordered"


def plan(seed: int) -> Iterator[str]:
    """An endless sequence of kinds: one shuffled deck after the other."""
    draw = random.Random(seed)
    while True:
        deck = [kind for kind, count in DECK.items() for _ in range(count)]
        draw.shuffle(deck)
        yield from deck


@dataclass(slots=True)
class Fault:
    """A fault whose effect was not observed yet. `pools` are those whose units it may hit; `evidence` tells
    if a loss is its effect, and is None if the taken order is enough."""

    kind: str
    done: float
    pools: Collection[str] = ()
    victims: frozenset[Replica] = frozenset()
    order: Path | None = None
    evidence: Callable[[Loss], bool] | None = None


@dataclass(slots=True)
class Injector:
    """Injects the faults of a plan into one run. `counts` are faults that took effect, `missed` those that
    did not, and `pending` those that still may."""

    driver: Driver
    nodes: Nodes
    orders: Path
    draw: random.Random
    kinds: Iterator[str]
    counts: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    pending: list[Fault] = field(default_factory=list)
    _waiting: list[str] = field(default_factory=list)
    _claimed: set[Replica] = field(default_factory=set)
    _losses: int = 0
    _spared: dict[str, tuple[int, int]] = field(default_factory=dict)
    _stopped: list[Process] = field(default_factory=list)
    _ordered: int = 0

    @property
    def effective(self) -> int:
        """Faults that took effect."""
        return self.counts.total()

    @property
    def done(self) -> int:
        """Faults that took effect or still may."""
        return self.effective + len(self.pending)

    def step(self) -> None:
        """Inject the next fault of the plan, if this is a moment for it. A killed driver is started again."""
        if len(self.pending) >= PENDING:
            return
        # A kind for which this is no moment waits for one, and others go before it.
        for kind in [*self._waiting]:
            if self._do(kind):
                self._waiting.remove(kind)
                return
        if len(self._waiting) < WAITING:
            self._waiting.append(next(self.kinds))

    def observe(self) -> None:
        """Count the faults that took effect, and drop those that waited too long for an effect."""
        losses = self.driver.observed.losses[self._losses :]
        self._losses += len(losses)
        for loss in losses:
            found = next((fault for fault in self.pending if self._shows(fault, loss)), None)
            if found is not None:
                self._took_effect(found)
        for fault in [*self.pending]:
            if fault.evidence is None and fault.order is not None and not fault.order.exists():
                self._took_effect(fault)
            elif self._came_to_nothing(fault):
                self.pending.remove(fault)
                self.missed[fault.kind] += 1
                if fault.order is not None:
                    fault.order.unlink(missing_ok=True)

    def give_up(self) -> None:
        """End the campaign: a fault without an effect by now does not count."""
        self.observe()
        self.missed.update(fault.kind for fault in self.pending)
        self.pending.clear()

    def end_stopped(self) -> None:
        """End the stopped processes that nobody has ended: they cannot end themselves."""
        for stopped in self._stopped:
            stopped.signal(signal.SIGKILL)

    def _took_effect(self, fault: Fault) -> None:
        self.pending.remove(fault)
        self.counts[fault.kind] += 1
        for pool in fault.pools:
            self._spared[pool] = (self.driver.lives, self._answers(pool) + AFTER[pool])

    def _came_to_nothing(self, fault: Fault) -> bool:
        """True if the fault can no longer take effect, for example because its victims were retired."""
        gone = bool(fault.victims) and fault.victims <= self.driver.observed.retired
        return gone or time.monotonic() - fault.done > EFFECT_SECONDS

    def _shows(self, fault: Fault, loss: Loss) -> bool:
        if fault.victims:
            return loss.replica in fault.victims
        if loss.replica in self._claimed or fault.order is None or fault.order.exists():
            return False
        return fault.evidence is not None and fault.evidence(loss)

    def _do(self, kind: str) -> bool:
        """Inject one fault, unless this is no moment for it."""
        if kind == DRIVER:
            return self._kill_driver()
        if kind in ORDERS:
            return self._order(kind)
        if kind.startswith("node"):
            return self._remove_node(kind)
        return self._signal(kind)

    def _kill_driver(self) -> bool:
        # What is still to show an effect would have nobody left to show it, but for a start that comes.
        if any(fault.kind != START for fault in self.pending) or not self.driver.observed.ready:
            return False
        if self.driver.kill():
            self.counts[DRIVER] += 1
            self.driver.start()
        else:
            self.missed[DRIVER] += 1
        return True

    def _order(self, kind: str) -> bool:
        pools = () if kind == START else tuple(POOLS)
        waiting = any(fault.order is not None and fault.kind == kind for fault in self.pending)
        if waiting or not self._may_hit(pools, hang=ORDERS[kind] == "hang"):
            return False
        self._ordered += 1
        order = self.orders / f"{ORDERS[kind]}-{self._ordered}"
        fault = Fault(kind, time.monotonic(), pools, order=order, evidence=_evidence(kind))
        order.touch()
        self.pending.append(fault)
        return True

    def _may_hit(self, pools: Collection[str], *, hang: bool) -> bool:
        """True if the units of these pools may be hit now and, for a `hang`, if it would be noticed."""
        for pool in pools:
            life, answers = self._spared.get(pool, (0, 0))
            if any(pool in fault.pools for fault in self.pending):
                return False
            if life == self.driver.lives and self._answers(pool) < answers:
                return False
            if hang and self._answers(pool) < PACED[pool]:
                return False
        return True

    def _answers(self, pool: str) -> int:
        return self.driver.observed.answered[POOLS[pool]]

    def _remove_node(self, kind: str) -> bool:
        # A unit that goes with its node is not suspected. But the replica that took an order might go, too.
        if any(fault.order is not None for fault in self.pending):
            return False
        hosted: dict[Node, set[Replica]] = {}
        for replica in self.driver.observed.ready - self._claimed:
            if (node := self.nodes.host(replica.pid)) is not None:
                hosted.setdefault(node, set()).add(replica)
        if not hosted:
            return False
        node = self.draw.choice(sorted(hosted, key=lambda node: node.number))
        self._strike(kind, hosted[node])
        self.nodes.replace(node, graceful=kind.endswith("gracefully"))
        return True

    def _signal(self, kind: str) -> bool:
        pool = "scorer" if "scorer" in kind else "rewriter"
        choice = self._targets(pool)
        if not choice or not self._may_hit((pool,), hang="stopped" in kind):
            return False
        replica, target = self.draw.choice(choice)
        number = signal.SIGSTOP if "stopped" in kind else signal.SIGKILL
        if not target.signal(number):
            return False
        if number is signal.SIGSTOP:
            self._stopped.append(target)
        self._strike(kind, {replica}, (pool,))
        return True

    def _targets(self, pool: str) -> Sequence[tuple[Replica, Process]]:
        """The ready replicas of a pool that no fault has hit yet, with their processes."""
        ready = [replica for replica in self.driver.observed.ready - self._claimed if replica.pool == pool]
        found = [
            (replica, process(replica.pid)) for replica in sorted(ready, key=lambda replica: replica.number)
        ]
        return [
            (replica, target)
            for replica, target in found
            if target is not None and self.nodes.host(replica.pid) is not None
        ]

    def _strike(self, kind: str, victims: set[Replica], pools: Collection[str] = ()) -> None:
        self._claimed |= victims
        self.pending.append(Fault(kind, time.monotonic(), pools, victims=frozenset(victims)))


def _evidence(kind: str) -> Callable[[Loss], bool] | None:
    """The pattern of a loss that an ordered fault of this kind causes; None if no loss need follow."""
    order = ORDERS[kind]
    if order == "error":
        return None
    if order == "hang":
        return lambda loss: _OVERDUE in loss.reason
    if order == "start":
        return lambda loss: _FAILED_START in loss.reason
    return lambda loss: _OVERDUE not in loss.reason and _FAILED_START not in loss.reason
