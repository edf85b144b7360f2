"""The lease of a run folder in object storage; `pmpo_ray.store.lease` describes the protocol."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    holder_key,
    holder_text,
    in_use_error,
    not_held_error,
    remove_record,
    removed_error,
    taken_over_error,
    too_late_error,
)

_log = logging.getLogger(__name__)


def _boot_clock() -> float:
    """Seconds of a clock that is never set back. Unlike time.monotonic, it also runs while the machine
    sleeps, so the lease of a laptop that was shut for an hour has expired."""
    return time.clock_gettime(time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC)


@contextmanager
def hold_stored(folder: Folder, driver: Driver, timing: Timing) -> Iterator[Lease]:
    """Hold a folder by its lease.json, which a thread renews until the block ends. Raises RunFolderError if
    another driver holds it."""
    lease, ended = StoredLease(folder, driver, timing), threading.Event()

    def beat() -> None:
        while not ended.wait(timing.beat):
            # The storage may answer again at the next beat; until then, checks report the error.
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
        # If a beat hangs in the storage, a release would hang too.
        if not beating.is_alive():
            lease.release()


class StoredLease:
    """The lease of a driver that holds a folder by lease.json alone. Several threads may share it.

    `clock` returns seconds that also pass while the machine sleeps.
    """

    def __init__(
        self,
        folder: Folder,
        driver: Driver,
        timing: Timing = DEFAULT_TIMING,
        *,
        clock: Callable[[], float] = _boot_clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._driver = driver
        self._timing = timing
        self._clock = clock
        self._sleep = sleep
        self._mutex = threading.Lock()
        self._beats = 0
        self._written: bytes | None = None
        # Keys of holders that were found dead. A write that they had started may still arrive.
        self._dead: set[str | bytes] = set()
        self._ended: RunFolderError | None = None
        # The time up to which our last beat keeps others from taking over.
        self._valid_until = -math.inf
        # The time from which our lease.json, if it is still there, proves that no other driver holds the
        # folder, and whether it was seen then.
        self._alone_from = -math.inf
        self._held = self._ever_held = False

    def take(self) -> None:
        """Take the folder. Raises RunFolderError if another driver holds it."""
        self._wait_for_holder()
        with self._mutex:
            self._establish()

    def beat(self) -> None:
        """Show that this driver is alive. Raises RunFolderError as `take` does, or if the storage fails."""
        with self._mutex:
            self._renew()

    def check(self) -> None:
        with self._mutex:
            self._look()
            if not self._valid():
                self._establish()

    def release(self) -> None:
        """Release the folder; checks fail from now on."""
        with self._mutex:
            if self._ended is None:
                self._ended = not_held_error(self._folder)
                remove_record(self._folder, self._driver)

    def _wait_for_holder(self) -> None:
        """Return when no other driver holds the folder. Raises RunFolderError as soon as the holder shows
        that it is alive."""
        seen = self._folder.read(LEASE_FILE)
        if seen is None:
            return
        holder = decode_driver(seen)
        if holder is None or not died_here(holder, self._driver.machine):
            _log.warning(
                "%s was in use by %s: watching it for up to %.0f s to see if it still is",
                self._folder.path(),
                holder_text(seen),
                self._timing.watch,
            )
            until, last = self._clock() + self._timing.watch, False
            while not last:
                self._sleep(self._timing.look)
                # The time is read before the look: the last look has to come after the end of the watch.
                last = self._clock() >= until
                content = self._folder.read(LEASE_FILE)
                if content is None:
                    return
                if content != seen:
                    raise self._end(in_use_error(self._folder, content))
        self._dead.add(holder_key(seen))

    def _establish(self) -> None:
        """Beat until the lease is valid."""
        deadline = self._clock() + 2 * self._timing.watch
        self._renew()
        while not self._valid():
            if self._clock() >= deadline:
                raise RunFolderError(
                    f"{self._folder.path(LEASE_FILE)} cannot be renewed in time because the storage answers "
                    "too slowly; check the network and start the run again"
                )
            self._sleep(min(max(self._alone_from - self._clock(), 0), self._timing.beat))
            self._renew()

    def _renew(self) -> None:
        """Write lease.json once. The folder is held once a write begins after `_alone_from` and ends while
        the lease is valid."""
        began = self._clock()
        current = self._look()
        self._beats += 1
        content = self._driver.encode(self._beats)
        self._folder.write(LEASE_FILE, content)
        ended = self._clock()
        if ended >= self._valid_until:
            # There was no lease yet, or others may have found us dead: take it like a new one.
            quick = ended - began <= self._timing.settle
            if self._ever_held and not (quick and current == self._written):
                # This write, or an earlier one that failed and arrived late, may have hidden another holder.
                raise self._end(too_late_error(self._folder))
            wait = self._timing.settle if quick else self._timing.watch
            # Never sooner than an earlier, slower write requires.
            self._alone_from = max(self._alone_from, ended + wait)
            self._held = False
        elif began >= self._alone_from:
            self._held = self._ever_held = True
        self._written = content
        self._valid_until = began + self._timing.lease

    def _look(self) -> bytes | None:
        """Read lease.json. Raises RunFolderError, now and at every later look, if the folder is lost."""
        if self._ended is not None:
            raise self._ended
        content = self._folder.read(LEASE_FILE)
        if content is None:
            if self._ever_held:
                raise self._end(removed_error(self._folder))
        elif holder_key(content) not in {self._driver.token, *self._dead}:
            lost_error = taken_over_error if self._ever_held else in_use_error
            raise self._end(lost_error(self._folder, content))
        return content

    def _valid(self) -> bool:
        return self._held and self._clock() < self._valid_until

    def _end(self, error: RunFolderError) -> RunFolderError:
        self._ended = error
        return error
