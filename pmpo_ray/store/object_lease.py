"""The lease of a run folder in object storage; `pmpo_ray.store.lease` explains the protocol."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections.abc import Callable

from pmpo_ray.errors import RunFolderError
from pmpo_ray.store.folder import Folder
from pmpo_ray.store.lease_record import (
    DEFAULT_TIMING,
    LEASE_FILE,
    Driver,
    Timing,
    decode_driver,
    died_here,
    holder_text,
    holding_of,
    in_use_error,
    not_held_error,
    remove_own,
    removed_error,
    taken_over_error,
    too_late_error,
)

_log = logging.getLogger(__name__)


def _seconds_also_asleep() -> float:
    """Seconds since some moment, never set back. Unlike time.monotonic, it goes on while the machine sleeps:
    the lease of a laptop that was shut for an hour has run out."""
    return time.clock_gettime(time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC)


class StoredLease:
    """The lease of a driver that holds a folder by lease.json alone; see the module's docstring.

    `clock` gives seconds that also count while the machine sleeps. Threads may share it.
    """

    def __init__(
        self,
        folder: Folder,
        driver: Driver,
        timing: Timing = DEFAULT_TIMING,
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
                self._ended = not_held_error(self._folder)
                remove_own(self._folder, self._driver)

    def _wait_for_holder(self) -> None:
        """Return when nobody holds the folder. Raises RunFolderError as soon as the holder shows that it is
        alive."""
        seen = self._folder.read(LEASE_FILE)
        if seen is None:
            return
        holder = decode_driver(seen)
        if holder is None or not died_here(holder, self._driver.machine):
            _log.warning(
                "%s was in use by %s: watching for up to %.0f s whether it still is",
                self._folder.path(),
                holder_text(seen),
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
                    raise self._end(in_use_error(self._folder, content))
        self._dead.add(holding_of(seen))

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
                raise self._end(too_late_error(self._folder))
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
                raise self._end(removed_error(self._folder))
        elif holding_of(content) not in {self._driver.token, *self._dead}:
            lost = taken_over_error if self._ever_held else in_use_error
            raise self._end(lost(self._folder, content))
        return content

    def _valid(self) -> bool:
        return self._held and self._clock() < self._good_until

    def _end(self, error: RunFolderError) -> RunFolderError:
        self._ended = error
        return error
