"""The deadlines of units, from measured times.

Invariant: pure arithmetic; no clock is read here.

The measure is the time from sending a unit to its answer, divided by the replica's load when it was sent (its
weight plus that of the units outstanding before it). It covers both waiting behind another unit and being
answered in one batch with others.
"""

from __future__ import annotations

from collections import deque
from statistics import median

FACTOR = 10.0
"""A unit is overdue when it takes this many times as long as usual plus the grace. The lengths of answers
vary by less, and a false alarm costs only a restart."""
FIRST_DEADLINE = 3600.0
"""Seconds for a unit before anything was measured."""
_SAMPLES = 64
_MIN_SAMPLES = 3


class Pace:
    """The measured pace of a pool. `grace` (seconds) is added to every deadline: a replica may swap, compile
    or share its cores."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self._usual: float | None = None

    def observe(self, load: float, seconds: float) -> None:
        """Note that a unit sent at a load of `load` tokens was answered after `seconds`."""
        self._samples.append(seconds / max(load, 1.0))
        self._usual = None

    def allowance(self, load: float, tries: int) -> float:
        """The seconds that a unit sent at a load of `load` tokens may take. They double with every failed
        try, since the unit and not the replicas may be slow."""
        if len(self._samples) < _MIN_SAMPLES:
            return max(FIRST_DEADLINE, self._grace)
        if self._usual is None:
            self._usual = median(self._samples)
        return (self._grace + FACTOR * self._usual * load) * 2.0**tries
