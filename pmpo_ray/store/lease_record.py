"""The record of the driver that holds a run folder (lease.json), and the errors of drivers that may not write
to the folder."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pmpo_ray.errors import RunFolderError
from pmpo_ray.store.folder import Folder, alive

LEASE_FILE = "lease.json"
BEAT_SECONDS = 5.0
"""The time between two writes of lease.json by its holder."""
LEASE_SECONDS = 20.0
"""The time for which a lease is valid after the start of a beat."""
WATCH_SECONDS = 30.0
"""The time for which another driver's lease.json is watched: longer than a lease, by the duration of a write
that was checked in the lease's last moment."""
SETTLE_SECONDS = 3.0
"""The time after which the last of several drivers that wrote lease.json at once has won."""


class Lease(Protocol):
    """The right to write a run folder, which may be lost."""

    def check(self) -> None:
        """Raise RunFolderError unless this driver may still write. Blocks on the disk or the network; several
        threads may call it at once."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of the protocol that `pmpo_ray.store.lease` describes, in seconds; `look` is the time between
    two looks at a lease.json that is watched."""

    beat: float = BEAT_SECONDS
    lease: float = LEASE_SECONDS
    watch: float = WATCH_SECONDS
    settle: float = SETTLE_SECONDS
    look: float = 1.0


DEFAULT_TIMING = Timing()


@dataclass(frozen=True, slots=True)
class Driver:
    """A process that holds a run folder. It has another `token` every time it holds one. `machine` identifies
    the boot and the process namespace in which `pid` is valid, None if unknown; `since` is in ISO 8601."""

    token: str
    host: str
    pid: int
    since: str
    machine: str | None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    def encode(self, beat: int) -> bytes:
        """The content of lease.json at the beat with this number."""
        return json.dumps(asdict(self) | {"beat": beat}, indent=2).encode() + b"\n"


def this_driver() -> Driver:
    """This process, about to hold a run folder."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return Driver(secrets.token_hex(16), socket.gethostname(), os.getpid(), since, this_machine())


def this_machine() -> str | None:
    """A name for this boot of this machine and this process namespace; None where Linux does not report
    them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def remove_record(folder: Folder, driver: Driver) -> None:
    """Remove lease.json if it is `driver`'s."""
    # If this fails, the next driver still gets the folder: it finds that this process is gone, or watches.
    with contextlib.suppress(RunFolderError):
        content = folder.read(LEASE_FILE)
        if content is not None and holder_key(content) == driver.token:
            folder.remove(LEASE_FILE)


def decode_driver(content: bytes) -> Driver | None:
    """The driver that wrote this lease.json; None if the content is not one."""
    try:
        document = json.loads(content)
        machine = document["machine"]
        return Driver(
            str(document["token"]),
            _printable(document["host"]),
            int(document["pid"]),
            _printable(document["since"]),
            None if machine is None else str(machine),
        )
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _printable(value: object) -> str:
    """`value` as an error text may show it: a file in shared storage can contain anything."""
    return "".join(char if char.isprintable() else "?" for char in str(value))[:100]


def holder_key(content: bytes) -> str | bytes:
    """A key that is the same for every lease.json that one driver writes while it holds the folder, and
    different for every other."""
    driver = decode_driver(content)
    return content if driver is None else driver.token


def holder_text(content: bytes | None) -> str:
    """The driver that wrote this lease.json, for error texts."""
    driver = None if content is None else decode_driver(content)
    return "an unknown process" if driver is None else str(driver)


def in_use_error(folder: Folder, content: bytes | None) -> RunFolderError:
    return RunFolderError(
        f"{folder.path()} is in use by another driver ({holder_text(content)}); wait until it ends, stop it, "
        "or choose another --run-dir"
    )


def taken_over_error(folder: Folder, content: bytes) -> RunFolderError:
    return RunFolderError(
        f"another driver ({holder_text(content)}) took over {folder.path()} while this one gave no sign of "
        "life, so this one stops writing; let the other finish, or stop it and start this one again"
    )


def removed_error(folder: Folder) -> RunFolderError:
    return RunFolderError(
        f"{folder.path(LEASE_FILE)} was removed during the run, so this driver stops writing; start the run "
        "again, and do not change a run folder while a driver works on it"
    )


def too_late_error(folder: Folder) -> RunFolderError:
    return RunFolderError(
        f"{folder.path(LEASE_FILE)} was renewed so late that another driver may have held the run folder in "
        "the meantime, so this one stops writing; start the run again"
    )


def not_held_error(folder: Folder) -> RunFolderError:
    return RunFolderError(
        f"{folder.path()} is not held any more, so nothing is written to it; start the run again"
    )


def died_here(holder: Driver, machine: str | None) -> bool:
    """True if `holder` was a process of this `machine` and has ended."""
    return holder.machine is not None and holder.machine == machine and not alive(holder.pid)
