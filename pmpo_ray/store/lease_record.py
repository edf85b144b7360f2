"""The record of who holds a run folder (lease.json), and the errors of those who may not write it."""

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
LEASE_SECONDS = 20.0
WATCH_SECONDS = 30.0
"""Longer than a lease, by the time that a write may take that was checked in the lease's last moment."""
SETTLE_SECONDS = 3.0


class Lease(Protocol):
    """The right to write a run folder, which may be lost."""

    def check(self) -> None:
        """Raise RunFolderError unless this driver may still write. Blocks on the disk or the network; threads
        may call it at once."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """The seconds of the module docstring, and of one look while watching."""

    beat: float = BEAT_SECONDS
    lease: float = LEASE_SECONDS
    watch: float = WATCH_SECONDS
    settle: float = SETTLE_SECONDS
    look: float = 1.0


DEFAULT_TIMING = Timing()


@dataclass(frozen=True, slots=True)
class Driver:
    """Who holds a run folder. `token` is another for every holding; `machine` stands for the boot and the
    process namespace in which `pid` counts, None where they are not known; `since` is an ISO 8601 time."""

    token: str
    host: str
    pid: int
    since: str
    machine: str | None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    def encode(self, beat: int) -> bytes:
        return json.dumps(asdict(self) | {"beat": beat}, indent=2).encode() + b"\n"


def this_driver() -> Driver:
    """This process, about to hold a run folder."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return Driver(secrets.token_hex(16), socket.gethostname(), os.getpid(), since, this_machine())


def this_machine() -> str | None:
    """Names this boot of this machine and this process namespace, where Linux tells them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def remove_own(folder: Folder, driver: Driver) -> None:
    # The next driver does without: it finds that this process is gone, or watches.
    with contextlib.suppress(RunFolderError):
        content = folder.read(LEASE_FILE)
        if content is not None and holding_of(content) == driver.token:
            folder.remove(LEASE_FILE)


def decode_driver(content: bytes) -> Driver | None:
    """Whose lease.json this is; None if it cannot be read as one."""
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
    except (ValueError, KeyError, TypeError):
        return None


def _printable(value: object) -> str:
    """`value` as it can stand in an error text: a file in shared storage may hold anything."""
    return "".join(char if char.isprintable() else "?" for char in str(value))[:100]


def holding_of(content: bytes) -> str | bytes:
    """What all lease.json of one holding have in common, and no other has."""
    driver = decode_driver(content)
    return content if driver is None else driver.token


def holder_text(content: bytes | None) -> str:
    driver = None if content is None else decode_driver(content)
    return "a driver that gave no name" if driver is None else str(driver)


def in_use_error(folder: Folder, content: bytes | None) -> RunFolderError:
    return RunFolderError(
        f"{folder.path()} is in use by another driver ({holder_text(content)}); wait for it, end it, or "
        "choose another --run-dir"
    )


def taken_over_error(folder: Folder, content: bytes) -> RunFolderError:
    return RunFolderError(
        f"another driver ({holder_text(content)}) took over {folder.path()} while this one gave no sign of "
        "life, so this one writes no more; let the other finish, or end it and start this one again"
    )


def removed_error(folder: Folder) -> RunFolderError:
    return RunFolderError(
        f"{folder.path(LEASE_FILE)} was removed during the run, so this driver writes no more; leave a run "
        "folder as it is while a driver works on it, and start this one again"
    )


def too_late_error(folder: Folder) -> RunFolderError:
    return RunFolderError(
        f"{folder.path(LEASE_FILE)} was renewed so late that another driver may have held the run folder "
        "meanwhile, so this one writes no more; start it again"
    )


def not_held_error(folder: Folder) -> RunFolderError:
    return RunFolderError(f"{folder.path()} is not held any more, so nothing is written; start the run again")


def died_here(holder: Driver, machine: str | None) -> bool:
    """Whether `holder` was a process of this machine, and is gone."""
    return holder.machine is not None and holder.machine == machine and not alive(holder.pid)
