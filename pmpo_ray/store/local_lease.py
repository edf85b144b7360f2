"""The lease of a run folder on a local disk, over an OS lock."""

from __future__ import annotations

from pmpo_ray.store.folder import Folder
from pmpo_ray.store.lease_record import (
    LEASE_FILE,
    Driver,
    holding_of,
    not_held_error,
    remove_own,
    removed_error,
    taken_over_error,
)


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
            raise not_held_error(self._folder)
        content = self._folder.read(LEASE_FILE)
        if content is None:
            raise removed_error(self._folder)
        if holding_of(content) != self._driver.token:
            raise taken_over_error(self._folder, content)

    def release(self) -> None:
        self._released = True
        remove_own(self._folder, self._driver)
