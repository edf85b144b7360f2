"""The lease of a run folder on a local disk, based on an OS lock."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import BaseFileLock, FileLock, Timeout

from pmpo_ray.store.folder import PRIVATE_FILE, Folder
from pmpo_ray.store.lease_record import (
    LEASE_FILE,
    Driver,
    Lease,
    holder_key,
    in_use_error,
    not_held_error,
    remove_record,
    removed_error,
    taken_over_error,
)

LOCK_FILE = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system that does not support locks; every other error is reported."""


def acquire_lock(folder: Folder) -> BaseFileLock | None:
    """Lock the folder, created if it is absent; None if it is in object storage or on a file system without
    locks. Raises RunFolderError if another driver has the lock, or if the folder cannot be created."""
    path = folder.local_path(LOCK_FILE)
    if path is None:
        return None
    folder.create()
    lock = FileLock(path, mode=PRIVATE_FILE, blocking=False, thread_local=False, fallback_to_soft=False)
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
def hold_locked(folder: Folder, driver: Driver, lock: BaseFileLock) -> Iterator[Lease]:
    """Hold a folder whose `lock` this process has; release both when the block ends."""
    lease = LockedLease(folder, driver)
    try:
        folder.write(LEASE_FILE, driver.encode(0))
        yield lease
    finally:
        lease.release()
        lock.release()


class LockedLease:
    """The lease of a driver that has the OS lock of a local folder.

    The lock itself cannot be lost. But another driver may have removed the folder and created it again, and a
    file server forgets the locks of machines that it does not hear from: so lease.json is checked here too.
    """

    def __init__(self, folder: Folder, driver: Driver) -> None:
        self._folder = folder
        self._driver = driver
        self._released = False

    def check(self) -> None:
        if self._released:
            raise not_held_error(self._folder)
        content = self._folder.read(LEASE_FILE)
        if content is None:
            raise removed_error(self._folder)
        if holder_key(content) != self._driver.token:
            raise taken_over_error(self._folder, content)

    def release(self) -> None:
        self._released = True
        remove_record(self._folder, self._driver)
