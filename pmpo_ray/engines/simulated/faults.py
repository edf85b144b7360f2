"""Faults on order, for tests of how a run handles them.

Invariant: every ordered fault happens once, to one engine, in whatever process it is.

An order is a file in the folder, named KIND-ANYTHING. The first engine that comes by takes the file and
suffers the fault: "start" fails its start, "error" one call; "hang" lets one call never end; "die" ends its
process.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

FOREVER = 24 * 3600.0


class OrderedFaults:
    """The faults ordered in one folder; none if `folder` is empty."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder) if folder else None

    def at_start(self) -> None:
        """Raises RuntimeError if a failed start is ordered."""
        if self._take("start"):
            raise RuntimeError("a failed start was ordered")

    def at_call(self) -> None:
        """Raises RuntimeError if a failed call is ordered; may never return."""
        if self._take("error"):
            raise RuntimeError("a failed call was ordered")
        if self._take("hang"):
            time.sleep(FOREVER)
        if self._take("die"):
            os._exit(1)

    def _take(self, kind: str) -> bool:
        if self._folder is None:
            return False
        for order in self._folder.glob(f"{kind}-*"):
            try:
                order.unlink()
            except FileNotFoundError:
                # Another engine was faster.
                continue
            return True
        return False
