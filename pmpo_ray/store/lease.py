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
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from pmpo_ray.errors import RunFolderError
from pmpo_ray.store.folder import Folder
from pmpo_ray.store.lease_record import (
    DEFAULT_TIMING,
    LEASE_FILE,
    Driver,
    Lease,
    Timing,
    decode_driver,
    died_here,
    in_use_error,
    this_driver,
    this_machine,
)
from pmpo_ray.store.local_lease import LockedLease
from pmpo_ray.store.object_lease import StoredLease

LOCK_FILE = ".lock"


# What a file system answers that knows no locks; every other error has to be told.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def hold(location: str, timing: Timing = DEFAULT_TIMING) -> Iterator[Lease]:
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
    holder = decode_driver(content)
    return holder is None or not died_here(holder, this_machine())


def _lock(folder: Folder, path: Path) -> BaseFileLock | None:
    """The OS lock on `path`, or None where the file system has none."""
    lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise in_use_error(folder, folder.read(LEASE_FILE)) from None
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
