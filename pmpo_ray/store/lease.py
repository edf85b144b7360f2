"""One driver at a time writes a run folder: who may, who is refused, and when a lost one is replaced.

Always true: from the moment a driver holds a folder, no check of an earlier holder passes any more, whether
it was killed, cut off or asleep meanwhile; only a write that had passed its check may still arrive. A holder
that is gone blocks the next one for WATCH_SECONDS and a few more at most, on a local disk and on its own
machine not at all. No two machines' clocks are compared.

On a local disk an OS lock on .lock decides, which the kernel drops with the process; lease.json says whose it
is. Object storage has no lock and, through pyarrow.fs, no conditional write, so there lease.json decides:

    hold    a holder writes lease.json anew every BEAT_SECONDS. Its lease is good for LEASE_SECONDS from the
            moment at which it began the last of these beats.
    take    who finds another's lease.json watches it for WATCH_SECONDS, longer than any lease that it may
            stand for. If it changes, its holder is alive. If not, or if there is none, the taker writes
            its own, waits SETTLE_SECONDS, and has the folder if lease.json is still its own. Of several that
            write at once the last remains; who took longer than SETTLE_SECONDS to write waits as long as a
            lease of the others could be good (this is Fischer's algorithm for mutual exclusion).
    check   before every write lease.json is read: a foreign one, or none, ends the holder for good. A holder
            whose lease ran out and that finds its own last beat there takes it again first, in the same way.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from filelock import BaseFileLock, FileLock, Timeout

from pmpo_ray.errors import RunFolderError
from pmpo_ray.store.folder import Folder, alive

LEASE_FILE = "lease.json"
LOCK_FILE = ".lock"

BEAT_SECONDS = 5.0
LEASE_SECONDS = 20.0
WATCH_SECONDS = 30.0
"""Longer than a lease, by the time that a write may take that was checked in the lease's last moment."""
SETTLE_SECONDS = 3.0

# What a file system answers that knows no locks; every other error has to be told.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP)
_log = logging.getLogger(__name__)


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


_TIMING = Timing()


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
    return Driver(secrets.token_hex(16), socket.gethostname(), os.getpid(), since, _machine())


def _machine() -> str | None:
    """Names this boot of this machine and this process namespace, where Linux tells them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _seconds_also_asleep() -> float:
    """Seconds since some moment, never set back. Unlike time.monotonic, it goes on while the machine sleeps:
    the lease of a laptop that was shut for an hour has run out."""
    return time.clock_gettime(time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC)


@contextmanager
def hold(location: str, timing: Timing = _TIMING) -> Iterator[Lease]:
    """Hold the run folder at `location`, which need not be there yet, until the block ends:

        with hold(location) as lease:
            store = RunStore.create(location, config_yaml, lease)

    Raises RunFolderError, which names the other driver, where one holds the folder: at once on a local disk,
    with its next beat in object storage. There, taking a folder takes SETTLE_SECONDS, and WATCH_SECONDS more
    after a driver that vanished on another machine.
    """
    folder, driver = Folder(location), this_driver()
    path = folder.local_path(LOCK_FILE)
    lock = None if path is None else _lock(folder, path)
    with (
        _hold_stored(folder, driver, timing) if lock is None else _hold_locked(folder, driver, lock) as lease
    ):
        yield lease


def is_held(folder: Folder) -> bool:
    """Whether a driver holds the folder, as far as can be told without watching it: one that vanished on
    another machine seems to be there still."""
    content = folder.read(LEASE_FILE)
    if content is None:
        return False
    holder = _decode(content)
    return holder is None or not _died_here(holder, _machine())


def _lock(folder: Folder, path: Path) -> BaseFileLock | None:
    """The OS lock on `path`, or None where the file system has none."""
    lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise _refusal(folder, folder.read(LEASE_FILE)) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise folder.failure("lock", LOCK_FILE, error) from error
    return lock


@contextmanager
def _hold_locked(folder: Folder, driver: Driver, lock: BaseFileLock) -> Iterator[Lease]:
    lease = LockedLease(folder, driver)
    try:
        folder.write(LEASE_FILE, driver.encode(0))
        yield lease
    finally:
        lease.release()
        lock.release()


@contextmanager
def _hold_stored(folder: Folder, driver: Driver, timing: Timing) -> Iterator[Lease]:
    lease, ended = StoredLease(folder, driver, timing), threading.Event()

    def beat() -> None:
        while not ended.wait(timing.beat):
            # The storage may answer again at the next beat; until then, checks say what is wrong.
            with contextlib.suppress(RunFolderError):
                lease.beat()

    beating = threading.Thread(target=beat, name="lease", daemon=True)
    try:
        lease.take()
        beating.start()
        yield lease
    finally:
        ended.set()
        if beating.is_alive():
            beating.join(timing.lease)
        # Where a beat hangs in the storage, so would this.
        if not beating.is_alive():
            lease.release()


class LockedLease:
    """The lease of a driver that has the OS lock of a local folder.

    The lock cannot be lost, but the folder can be removed and made again by another driver, and a file
    server forgets the locks of machines that it does not hear from: so lease.json is asked here as well.
    """

    def __init__(self, folder: Folder, driver: Driver) -> None:
        self._folder = folder
        self._driver = driver
        self._released = False

    def check(self) -> None:
        if self._released:
            raise _let_go(self._folder)
        content = self._folder.read(LEASE_FILE)
        if content is None:
            raise _removed(self._folder)
        if _key(content) != self._driver.token:
            raise _taken_over(self._folder, content)

    def release(self) -> None:
        self._released = True
        _remove_own(self._folder, self._driver)


class StoredLease:
    """The lease of a driver that holds a folder by lease.json alone; see the module's docstring.

    `clock` gives seconds that also count while the machine sleeps. Threads may share it.
    """

    def __init__(
        self,
        folder: Folder,
        driver: Driver,
        timing: Timing = _TIMING,
        *,
        clock: Callable[[], float] = _seconds_also_asleep,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._driver = driver
        self._timing = timing
        self._clock = clock
        self._sleep = sleep
        self._one_at_a_time = threading.Lock()
        self._beats = 0
        self._written: bytes | None = None
        # Holders that were found dead. A write of theirs that was under way then may still arrive.
        self._dead: set[str | bytes] = set()
        self._ended: RunFolderError | None = None
        # Until when our last beat keeps others from taking over, ...
        self._good_until = -math.inf
        # ... from when on our lease.json proves that no other has an older right, and whether it was seen.
        self._alone_from = -math.inf
        self._held = self._ever_held = False

    def take(self) -> None:
        """Hold the folder. Raises RunFolderError if another driver does."""
        self._wait_for_holder()
        with self._one_at_a_time:
            self._establish()

    def beat(self) -> None:
        """Show that this driver is alive. Raises RunFolderError as `take` does, or if the storage fails."""
        with self._one_at_a_time:
            self._renew()

    def check(self) -> None:
        with self._one_at_a_time:
            self._look()
            if not self._valid():
                self._establish()

    def release(self) -> None:
        """Let the folder go; checks fail from now on."""
        with self._one_at_a_time:
            if self._ended is None:
                self._ended = _let_go(self._folder)
                _remove_own(self._folder, self._driver)

    def _wait_for_holder(self) -> None:
        """Return when nobody holds the folder. Raises RunFolderError as soon as the holder shows that it is
        alive."""
        seen = self._folder.read(LEASE_FILE)
        if seen is None:
            return
        holder = _decode(seen)
        if holder is None or not _died_here(holder, self._driver.machine):
            _log.warning(
                "%s was in use by %s: watching for up to %.0f s whether it still is",
                self._folder.path(),
                _who(seen),
                self._timing.watch,
            )
            until, last = self._clock() + self._timing.watch, False
            while not last:
                self._sleep(self._timing.look)
                # Asked before the look: it has to be a look at the time after the watch.
                last = self._clock() >= until
                content = self._folder.read(LEASE_FILE)
                if content is None:
                    return
                if content != seen:
                    raise self._end(_refusal(self._folder, content))
        self._dead.add(_key(seen))

    def _establish(self) -> None:
        """Beat until the lease is valid."""
        give_up = self._clock() + 2 * self._timing.watch
        self._renew()
        while not self._valid():
            if self._clock() >= give_up:
                raise RunFolderError(
                    f"{self._folder.path(LEASE_FILE)} cannot be renewed in time, the storage answers too "
                    "slowly; check the network and start again"
                )
            self._sleep(min(max(self._alone_from - self._clock(), 0), self._timing.beat))
            self._renew()

    def _renew(self) -> None:
        began = self._clock()
        found = self._look()
        self._beats += 1
        content = self._driver.encode(self._beats)
        self._folder.write(LEASE_FILE, content)
        ended = self._clock()
        if ended >= self._good_until:
            # There never was a lease, or others may have found us dead: it is taken like a new one.
            quick = ended - began <= self._timing.settle
            if self._ever_held and not (quick and found == self._written):
                # This write, or an earlier one that failed and arrived late, may have hidden another holder.
                raise self._end(_too_late(self._folder))
            wait = self._timing.settle if quick else self._timing.watch
            # Never sooner than an earlier, slower write asks for.
            self._alone_from = max(self._alone_from, ended + wait)
            self._held = False
        elif began >= self._alone_from:
            self._held = self._ever_held = True
        self._written = content
        self._good_until = began + self._timing.lease

    def _look(self) -> bytes | None:
        """What lease.json holds. Raises RunFolderError, from now on always, if the folder is lost."""
        if self._ended is not None:
            raise self._ended
        content = self._folder.read(LEASE_FILE)
        if content is None:
            if self._ever_held:
                raise self._end(_removed(self._folder))
        elif _key(content) not in {self._driver.token, *self._dead}:
            lost = _taken_over if self._ever_held else _refusal
            raise self._end(lost(self._folder, content))
        return content

    def _valid(self) -> bool:
        return self._held and self._clock() < self._good_until

    def _end(self, error: RunFolderError) -> RunFolderError:
        self._ended = error
        return error


def _remove_own(folder: Folder, driver: Driver) -> None:
    # The next driver does without: it finds that this process is gone, or watches.
    with contextlib.suppress(RunFolderError):
        content = folder.read(LEASE_FILE)
        if content is not None and _key(content) == driver.token:
            folder.remove(LEASE_FILE)


def _decode(content: bytes) -> Driver | None:
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


def _key(content: bytes) -> str | bytes:
    """What all lease.json of one holding have in common, and no other has."""
    driver = _decode(content)
    return content if driver is None else driver.token


def _who(content: bytes | None) -> str:
    driver = None if content is None else _decode(content)
    return "a driver that gave no name" if driver is None else str(driver)


def _refusal(folder: Folder, content: bytes | None) -> RunFolderError:
    return RunFolderError(
        f"{folder.path()} is in use by another driver ({_who(content)}); wait for it, end it, or choose "
        "another --run-dir"
    )


def _taken_over(folder: Folder, content: bytes) -> RunFolderError:
    return RunFolderError(
        f"another driver ({_who(content)}) took over {folder.path()} while this one gave no sign of life, so "
        "this one writes no more; let the other finish, or end it and start this one again"
    )


def _removed(folder: Folder) -> RunFolderError:
    return RunFolderError(
        f"{folder.path(LEASE_FILE)} was removed during the run, so this driver writes no more; leave a run "
        "folder as it is while a driver works on it, and start this one again"
    )


def _too_late(folder: Folder) -> RunFolderError:
    return RunFolderError(
        f"{folder.path(LEASE_FILE)} was renewed so late that another driver may have held the run folder "
        "meanwhile, so this one writes no more; start it again"
    )


def _let_go(folder: Folder) -> RunFolderError:
    return RunFolderError(f"{folder.path()} is not held any more, so nothing is written; start the run again")


def _died_here(holder: Driver, machine: str | None) -> bool:
    """Whether `holder` was a process of this machine, and is gone."""
    return holder.machine is not None and holder.machine == machine and not alive(holder.pid)
