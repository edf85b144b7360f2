"""The lives of a driver: processes that are started with the same command, one after the other, until one
ends by itself. Each is observed through its log and its ledger.

Invariant: this module ends only drivers that it started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_LAST_LINES = 5


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica of one life of a driver."""

    life: int
    pool: str
    number: int
    pid: int


@dataclass(frozen=True, slots=True)
class Loss:
    """A replica that a pool gave up. Its `pid` is 0 if it never had a place."""

    replica: Replica
    reason: str


@dataclass(frozen=True, slots=True)
class Units:
    """The counts of one life's ledger. `retries` are repeated calls; `repeated` are units of scoring that
    were answered although the same unit had been answered before."""

    submitted: int
    resolved: int
    failed: int
    retries: int
    repeated: int


class Lines:
    """The JSON lines of a file that another process still writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """The complete lines that were written since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                yield json.loads(line)


@dataclass(slots=True)
class Observed:
    """The content of log and ledger: the replicas that are `ready` now, the number of `submitted` and
    `answered` calls of this life by method, every loss so far, the replicas that were `retired` as idle, and
    a line for each unit that failed."""

    ready: set[Replica] = field(default_factory=set)
    submitted: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    losses: list[Loss] = field(default_factory=list)
    retired: set[Replica] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)

    def note(self, line: dict[str, Any], life: int) -> None:
        """Take in one line of the log."""
        event = line["event"]
        if event == "unit failed":
            self.failures.append(
                f"{line['pool']}: a unit failed after {line['tries']} tries: {line['reason']}"
            )
        if event not in ("replica ready", "replica lost", "replica retired"):
            return
        replica = Replica(life, line["pool"], line["replica"], _pid(line["where"]))
        if event == "replica ready":
            self.ready.add(replica)
        else:
            self.ready.discard(replica)
        if event == "replica retired":
            self.retired.add(replica)
        elif event == "replica lost":
            self.losses.append(Loss(replica, line["reason"]))

    def count(self, line: dict[str, Any]) -> None:
        """Take in one line of the ledger."""
        if line["state"] in ("submitted", "answered"):
            counter = self.submitted if line["state"] == "submitted" else self.answered
            counter[line["method"]] += 1


class Driver:
    """One driver after the other over the same run folder `run`; `observed` covers all of them."""

    def __init__(self, config: Path, run: Path, grace: float) -> None:
        self._command = [str(config), "--run-dir", str(run), "--log-format", "json", "--json"]
        self.run = run
        self._notes = notes = run.with_name(f"{run.name}-notes")
        self._grace = grace
        self._process: subprocess.Popen[bytes] | None = None
        self._log = self._ledger = Lines(notes / "none")
        self.observed = Observed()
        self.lives = 0
        notes.mkdir(parents=True)

    def start(self) -> None:
        """Start another life."""
        self.lives += 1
        self.observed.ready.clear()
        self.observed.submitted.clear()
        self.observed.answered.clear()
        self._log, self._ledger = Lines(self._path("log")), Lines(self._path("ledger"))
        command = [sys.executable, "-m", "benchmarks.faults.driver", str(self._path("ledger"))]
        with self._path("log").open("wb") as log, self._path("result").open("wb") as result:
            self._process = subprocess.Popen(
                [*command, str(self._grace), "optimize", *self._command], stdout=result, stderr=log, cwd=ROOT
            )

    def listen(self) -> None:
        """Read the new lines of log and ledger."""
        for line in self._log.new():
            self.observed.note(line, self.lives)
        for line in self._ledger.new():
            self.observed.count(line)

    def ended(self) -> int | None:
        """The exit code of this life; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int | None:
        """The process of this life."""
        return None if self._process is None else self._process.pid

    def kill(self) -> bool:
        """End this life with SIGKILL; True if the signal ended it."""
        if self._process is None:
            return False
        self._process.kill()
        return self._process.wait() == -signal.SIGKILL

    def last_words(self) -> str:
        """The end of this life's log, for the message of a failed run."""
        lines = self._path("log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LAST_LINES:])

    def units(self) -> list[Units]:
        """The units of each life."""
        return [units(Lines(self._path("ledger", life)).new()) for life in range(1, self.lives + 1)]

    def _path(self, kind: str, life: int | None = None) -> Path:
        return self._notes / f"{kind}-{life or self.lives}"


def units(lines: Iterator[dict[str, Any]] | Sequence[dict[str, Any]]) -> Units:
    """The counts of the lines of one life's ledger."""
    states: Counter[str] = Counter()
    scored: Counter[str] = Counter()
    contents: dict[int, str] = {}
    retries: dict[str, int] = {}
    for line in lines:
        states[line["state"]] += 1
        if line["state"] == "submitted":
            contents[line["unit"]] = line["what"]
            continue
        retries[line["method"]] = line["retries"]
        if line["state"] == "answered" and line["method"] == "score":
            scored[contents[line["unit"]]] += 1
    return Units(
        submitted=states["submitted"],
        resolved=states["answered"] + states["failed"] + states["cancelled"],
        failed=states["failed"],
        retries=sum(retries.values()),
        repeated=sum(count - 1 for count in scored.values()),
    )


@dataclass(frozen=True, slots=True)
class Process:
    """A process as the kernel knows it; another one that gets the same number differs in `started`."""

    pid: int
    started: int
    parent: int = field(compare=False)

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False if the process has ended."""
        if process(self.pid) != self:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def process(pid: int) -> Process | None:
    """The process with this number, or None."""
    try:
        # What follows the name, which may hold anything, is: state, parent, ..., start time (field 22).
        values = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if values[0] == "Z" else Process(pid, int(values[19]), int(values[1]))


def _pid(where: str) -> int:
    return int(where.rpartition(":")[2] or 0)
