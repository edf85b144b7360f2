"""Hold a run folder, so that one driver at a time writes it.

Invariants: from the moment a driver holds a folder, no check of an earlier holder passes any more, whether
that one was killed, cut off or suspended in the meantime; only a write that had passed its check may still
arrive. A dead holder blocks the next one for little more than WATCH_SECONDS, and not at all on a local disk
or on its own machine. Clocks of different machines are never compared.

On a local disk an OS lock on LOCK_FILE decides (`pmpo_ray.store.local_lease`), which the kernel drops with
the process; lease.json names the holder. Object storage has no locks and, through pyarrow.fs, no conditional
writes, so there lease.json decides (`pmpo_ray.store.object_lease`):

    hold    The holder rewrites lease.json every BEAT_SECONDS. Its lease is valid for LEASE_SECONDS from the
            moment at which it began the last of these beats.
    take    A driver that finds another's lease.json watches it for WATCH_SECONDS, longer than any lease that
            the file may represent. If it changes, its holder is alive. If it does not change, or does not
            exist, the driver writes its own, waits SETTLE_SECONDS, and holds the folder if lease.json is
            still its own. Of several drivers that write at once, the last one wins; a driver whose write
            took longer than SETTLE_SECONDS waits as long as a lease of the others could be valid (this is
            Fischer's algorithm for mutual exclusion).
    check   Before every write lease.json is read: if it is another driver's or missing, the holder has lost
            the folder for good. A holder whose lease has expired but whose last beat is still there takes the
            folder again first, in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pmpo_ray.store.folder import Folder
from pmpo_ray.store.lease_record import (
    DEFAULT_TIMING,
    LEASE_FILE,
    Lease,
    Timing,
    decode_driver,
    died_here,
    this_driver,
    this_machine,
)
from pmpo_ray.store.local_lease import acquire_lock, hold_locked
from pmpo_ray.store.object_lease import hold_stored


@contextmanager
def hold(location: str, timing: Timing = DEFAULT_TIMING) -> Iterator[Lease]:
    """Hold the run folder at `location`, which need not exist yet, until the block ends:

        with hold(location) as lease:
            store = RunStore.create(location, config_yaml, lease)

    In object storage, taking a folder takes SETTLE_SECONDS, and WATCH_SECONDS more after a driver that
    vanished on another machine.

    Raises RunFolderError, which names the other driver, if one holds the folder: at once on a local disk,
    with its next beat in object storage.
    """
    folder, driver = Folder(location), this_driver()
    lock = acquire_lock(folder)
    holding = hold_stored(folder, driver, timing) if lock is None else hold_locked(folder, driver, lock)
    with holding as lease:
        yield lease


def is_held(folder: Folder) -> bool:
    """True if a driver seems to hold the folder. The folder is not watched, so a driver that vanished on
    another machine still seems to hold it."""
    content = folder.read(LEASE_FILE)
    if content is None:
        return False
    holder = decode_driver(content)
    return holder is None or not died_here(holder, this_machine())
