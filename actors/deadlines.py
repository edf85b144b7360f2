"""How long a unit may take: deadlines from what was measured.

Invariant: pure arithmetic; no clock is read here.

What is measured is the time from sending a unit to its answer, over the replica's load at that moment (its
own weight and that of what was outstanding before it). So waiting behind another unit and being answered
together with others are both accounted for.
"""

from __future__ import annotations

from collections import deque
from statistics import median

FACTOR = 10.0
"""A unit is overdue when it took this many times as long as usual, and the grace on top. Lengths of answers
vary by less than that, and a false alarm costs only a restart."""
FIRST_DEADLINE = 3600.0
"""Seconds for a unit while nothing was measured yet."""
_SAMPLES = 64
_ENOUGH = 3


class Pace:
    """The measured pace of a pool. `grace` in seconds is allowed on top of everything: for a replica that
    swaps, compiles or shares its cores."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self._usual: float | None = None

    def observe(self, load: float, seconds: float) -> None:
        """A unit that was sent at a load of `load` tokens was answered after `seconds`."""
        self._samples.append(seconds / max(load, 1.0))
        self._usual = None

    def allowance(self, load: float, tries: int) -> float:
        """Seconds that a unit sent at a load of `load` may take; twice as many after every failed try, in
        case it is not the replicas that are slow."""
        if len(self._samples) < _ENOUGH:
            return max(FIRST_DEADLINE, self._grace)
        if self._usual is None:
            self._usual = median(self._samples)
        return (self._grace + FACTOR * self._usual * load) * 2.0**tries
