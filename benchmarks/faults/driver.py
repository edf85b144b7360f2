"""The driver of a disturbed run: `pmpo`, with pools that write every unit of work into a ledger.

    python -m benchmarks.faults.driver LEDGER GRACE optimize CONFIG --run-dir RUN ...

Invariant: a unit's line is in the file LEDGER before the unit is sent, and its end is there before the search
gets the answer, so that a kill of this process hides neither. GRACE replaces the grace of the pools (see
`pmpo_ray.actors.pool_spec.PoolSpec`), so that a hung replica is found in seconds, not minutes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from pmpo_ray.actors import clients
from pmpo_ray.actors.pool import Pool
from pmpo_ray.actors.pool_spec import PoolSpec
from pmpo_ray.cli.main import main as pmpo

T = TypeVar("T")


class Ledger:
    """A file of lines; each is handed to the operating system at once and whole."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._units = 0

    def number(self) -> int:
        """The number of the next unit."""
        self._units += 1
        return self._units

    def write(self, **line: object) -> None:
        os.write(self._file, (json.dumps(line) + "\n").encode())


def counted_pool(ledger: Ledger, grace: float) -> type[Pool]:
    """The class of pools that write into `ledger`."""

    class CountedPool(Pool):
        def __init__(self, spec: PoolSpec) -> None:
            super().__init__(replace(spec, grace=grace))

        async def submit(self, method: Callable[..., Awaitable[T]], *args: object, **settings: Any) -> T:
            unit = ledger.number()
            what = hashlib.blake2b(repr(args).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
            ledger.write(unit=unit, state="submitted", method=method.__name__, what=what)
            state = "failed"
            try:
                answer = await super().submit(method, *args, **settings)
                state = "answered"
            except asyncio.CancelledError:
                state = "cancelled"
                raise
            finally:
                ledger.write(unit=unit, state=state, method=method.__name__, retries=self.stats().retries)
            return answer

    return CountedPool


if __name__ == "__main__":
    _, path, seconds, *command = sys.argv
    clients.Pool = counted_pool(Ledger(path), float(seconds))  # type: ignore[attr-defined]
    sys.argv = ["pmpo", *command]
    pmpo()
