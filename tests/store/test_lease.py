"""One driver at a time writes a run folder, and a lost one blocks nobody."""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pmpo_ray.errors import RunFolderError
from pmpo_ray.store import Manifest, RunStore, hold
from pmpo_ray.store.folder import Folder
from pmpo_ray.store.lease_record import (
    BEAT_SECONDS,
    LEASE_FILE,
    LEASE_SECONDS,
    SETTLE_SECONDS,
    WATCH_SECONDS,
    Driver,
    Timing,
    this_driver,
)
from pmpo_ray.store.object_lease import StoredLease
from tests.store.test_run_store import CONFIG, TASK, is_one_line, packed_scores, result_of, rounds_of

# Where real time passes, only what has to happen is waited for: a watch ends with the first beat seen.
REAL = Timing(beat=0.1, lease=60, watch=60, settle=0.5, look=0.05)
NEVER = Timing(watch=1_000_000, settle=0.5)

HOLDER = """
import sys
from pmpo_ray.store import hold
from tests.store.test_lease import REAL
with hold(sys.argv[1], REAL):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_driver(location: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a run folder until it is ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, location],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def refusal(location: str, timing: Timing = REAL) -> str:
    with pytest.raises(RunFolderError) as error, hold(location, timing):
        pass
    assert is_one_line(error)
    return str(error.value)


def says_who_holds(text: str, location: str, pid: int) -> bool:
    holder = f"(process {pid} on {socket.gethostname()} since 2"
    advice = "; wait until it ends, stop it, or choose another --run-dir"
    return location in text and "is in use by another driver" in text and holder in text and advice in text


def assert_writes_nothing(store: RunStore, said: str) -> None:
    """Every method that writes fails with this reason."""
    manifest = Manifest({}, None, None, {}, 0, None, "2026-01-01T00:00:00+00:00")
    writers: list[Callable[[], object]] = [
        lambda: store.replace_config("seed: 1\n"),
        lambda: store.write_round(rounds_of(TASK)[1]),
        lambda: store.write_scores(packed_scores(0, 1)),
        lambda: store.write_best(TASK, rounds_of(TASK)),
        lambda: store.write_task_result(TASK, result_of(TASK)),
        lambda: store.write_manifest(manifest),
        lambda: store.write_summary([result_of(TASK)]),
        lambda: store.write_file("report.html", b""),
    ]
    for write in writers:
        with pytest.raises(RunFolderError, match=said) as error:
            write()
        assert is_one_line(error)


# A local folder.


@pytest.fixture
def location(tmp_path: Path) -> str:
    return str(tmp_path / "run")


@pytest.mark.slow
def test_a_second_driver_is_refused_with_the_name_of_the_first(location: str) -> None:
    with other_driver(location) as first:
        assert says_who_holds(refusal(location), location, first.pid)


@pytest.mark.slow
def test_a_killed_driver_does_not_stop_the_next_one(location: str) -> None:
    with other_driver(location) as first:
        kill(first)
        with hold(location, NEVER) as lease:
            lease.check()
            assert says_who_holds(refusal(location), location, os.getpid())


def test_two_runs_in_one_process_are_refused_too(location: str) -> None:
    with hold(location) as lease:
        assert says_who_holds(refusal(location), location, os.getpid())
        lease.check()


def test_the_folder_is_let_go_after_the_run_and_after_an_error(location: str) -> None:
    with pytest.raises(ZeroDivisionError), hold(location):
        raise ZeroDivisionError
    for _ in range(2):
        with hold(location):
            assert Path(location, LEASE_FILE).exists()
        assert not Path(location, LEASE_FILE).exists()


def test_one_of_many_that_start_a_new_run_at_the_same_moment_gets_it(location: str) -> None:
    assert sum(at_the_same_moment(location, 8)) == 1


def at_the_same_moment(location: str, drivers: int) -> list[bool]:
    """For each thread, if it could create the run. The one that could holds it until all have tried."""
    ready, tried = threading.Barrier(drivers), threading.Barrier(drivers)
    made = [False] * drivers

    def start(number: int) -> None:
        ready.wait()
        try:
            with hold(location, REAL) as lease:
                RunStore.create(location, CONFIG, lease)
                made[number] = True
                tried.wait()
        except RunFolderError:
            tried.wait()

    threads = [threading.Thread(target=start, args=(number,)) for number in range(drivers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made


def test_a_store_writes_while_its_lease_is_held_and_not_after(location: str) -> None:
    with hold(location) as lease:
        store = RunStore.create(location, CONFIG, lease)
        store.write_round(rounds_of(TASK)[0])
        for number in range(2):
            store.write_scores(packed_scores(number, number + 1))
        assert RunStore.open(location, lease).join_scores() == packed_scores(0, 2)
    assert_writes_nothing(store, "is not held any more")
    assert store.read_rounds(TASK) == rounds_of(TASK)[:1]
    RunStore.open(location).write_round(rounds_of(TASK)[1])


def test_parts_of_scores_stay_where_the_lease_is_lost(location: str) -> None:
    with hold(location) as lease:
        store = RunStore.create(location, CONFIG, lease)
        for number in range(2):
            store.write_scores(packed_scores(number, number + 1))
    with pytest.raises(RunFolderError, match="is not held any more"):
        store.join_scores()
    assert len(list(Path(location, "scores").iterdir())) == 2


def test_a_driver_whose_folder_was_removed_and_made_anew_writes_no_more(location: str) -> None:
    with hold(location) as lease:
        store = RunStore.create(location, CONFIG, lease)
        shutil.rmtree(location)
        assert_writes_nothing(store, r"lease\.json' was removed during the run")
        with hold(location) as second:
            assert_writes_nothing(store, r"another driver \(process .*\) took over")
            second.check()


def test_a_place_that_cannot_be_held_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert "file' is a file" in refusal(str(tmp_path / "file" / "run"))


def test_a_file_system_without_locks_is_held_as_object_storage_is(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with hold(location, REAL) as lease:
        assert isinstance(lease, StoredLease)
        RunStore.create(location, CONFIG, lease)
        assert says_who_holds(refusal(location), location, os.getpid())
    assert not Path(location, LEASE_FILE).exists()


# Object storage: a real S3 server on loopback.


@pytest.fixture
def remote(s3: str) -> str:
    """A run folder in S3 for one test."""
    return f"s3://runs/{secrets.token_hex(8)}?{s3}"


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def elsewhere(token: str, pid: int = 7) -> Driver:
    """A driver on another machine."""
    return Driver(token, "far-away", pid, "2026-01-01T00:00:00+00:00", "another boot")


def stored(folder: Folder, clock: Clock, driver: Driver) -> StoredLease:
    return StoredLease(folder, driver, clock=lambda: clock.now, sleep=clock.sleep)


@pytest.mark.slow
def test_in_s3_a_live_driver_is_not_disturbed(remote: str) -> None:
    with other_driver(remote) as first:
        assert says_who_holds(refusal(remote), remote.split("?")[0], first.pid)


@pytest.mark.slow
def test_in_s3_a_driver_that_was_killed_on_this_machine_does_not_stop_the_next_one(remote: str) -> None:
    with other_driver(remote) as first:
        kill(first)
        with hold(remote, NEVER) as lease:
            RunStore.create(remote, CONFIG, lease)


@pytest.mark.slow
def test_in_s3_the_folder_is_let_go_after_the_run_and_after_an_error(remote: str) -> None:
    folder = Folder(remote)
    with pytest.raises(ZeroDivisionError), hold(remote, REAL):
        raise ZeroDivisionError
    with hold(remote, NEVER) as lease:
        store = RunStore.create(remote, CONFIG, lease)
        assert folder.exists(LEASE_FILE)
    assert not folder.exists(LEASE_FILE)
    assert_writes_nothing(store, "is not held any more")


@pytest.mark.slow
def test_in_s3_one_of_some_that_start_at_the_same_moment_gets_it(remote: str) -> None:
    assert sum(at_the_same_moment(remote, 4)) == 1


@pytest.mark.slow
def test_a_lease_beats_by_itself_and_says_nothing_but_who_holds(remote: str) -> None:
    folder = Folder(remote)
    with hold(remote, REAL):
        before = content = folder.read(LEASE_FILE)
        while content == before:
            content = folder.read(LEASE_FILE)
        assert content is not None
        assert set(json.loads(content)) == {"token", "host", "pid", "since", "machine", "beat"}


@pytest.mark.slow
def test_a_lease_does_not_stand_among_the_files_of_a_run(remote: str) -> None:
    with hold(remote, REAL) as lease:
        store = RunStore.create(remote, CONFIG, lease)
        store.write_round(rounds_of(TASK)[0])
        store.write_scores(packed_scores(0, 1))
        assert store.read_rounds(TASK) == rounds_of(TASK)[:1]
        assert store.join_scores() == packed_scores(0, 1)
        with pytest.raises(ValueError, match="cannot name"):
            store.write_file(LEASE_FILE, b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", [elsewhere("a").encode(3), b"", b"{", b"[]", b'{"token": "a"}', b"\xff", b"null"]
)
def test_a_driver_that_vanished_is_replaced_after_the_watch(remote: str, content: bytes) -> None:
    folder, clock = Folder(remote), Clock()
    folder.write(LEASE_FILE, content)
    began = clock.now
    stored(folder, clock, elsewhere("b")).take()
    assert WATCH_SECONDS + SETTLE_SECONDS <= clock.now - began <= WATCH_SECONDS + SETTLE_SECONDS + 2


def test_a_driver_that_ends_during_the_watch_is_replaced_at_once(remote: str) -> None:
    folder, clock = Folder(remote), Clock()
    first = stored(folder, clock, elsewhere("a"))
    first.take()
    began = clock.now

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        first.release()

    StoredLease(folder, elsewhere("b"), clock=lambda: clock.now, sleep=sleep).take()
    assert clock.now - began < SETTLE_SECONDS + 2


@pytest.mark.slow
def test_a_driver_that_was_taken_over_writes_no_round_any_more(remote: str) -> None:
    clock, later = Clock(), Clock()
    first, second = (
        stored(Folder(remote), one, elsewhere(token)) for one, token in ((clock, "a"), (later, "b"))
    )
    first.take()
    store = RunStore.create(remote, CONFIG, first)
    store.write_round(rounds_of(TASK)[0])
    # The first sleeps: its clock stands still, as the clock of a machine that is suspended may.
    second.take()
    assert_writes_nothing(store, r"another driver \(process 7 on far-away .*\) took over '.*' while this one")
    RunStore.open(remote, second).write_round(rounds_of(TASK)[1])
    # Nor does it when the other has ended.
    second.release()
    assert_writes_nothing(store, "took over")
    first.release()
    assert store.read_rounds(TASK) == rounds_of(TASK)[:2]


# The protocol, with faults.


class Faulty(Folder):
    """A folder whose storage answers only while `fails` is false; `before_write` takes time."""

    fails = False

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.before_write: Callable[[], None] = lambda: None

    def read(self, name: str) -> bytes | None:
        self._answer()
        return super().read(name)

    def write(self, name: str, content: bytes) -> None:
        self._answer()
        self.before_write()
        super().write(name, content)

    def _answer(self) -> None:
        if self.fails:
            raise RunFolderError("the storage does not answer")


@pytest.fixture
def faulty(location: str) -> Faulty:
    return Faulty(location)


def test_beats_that_fail_for_a_while_do_no_harm(faulty: Faulty) -> None:
    clock = Clock()
    lease = stored(faulty, clock, elsewhere("a"))
    lease.take()
    faulty.fails = True
    for _ in range(2):
        clock.sleep(BEAT_SECONDS)
        with pytest.raises(RunFolderError, match="does not answer"):
            lease.beat()
    faulty.fails = False
    before = clock.now
    lease.check()
    lease.beat()
    assert clock.now == before


def test_a_driver_without_storage_for_longer_than_a_lease_takes_it_again_before_it_writes(
    faulty: Faulty,
) -> None:
    clock = Clock()
    lease = stored(faulty, clock, elsewhere("a"))
    lease.take()
    faulty.fails = True
    clock.sleep(LEASE_SECONDS)
    with pytest.raises(RunFolderError, match="does not answer"):
        lease.check()
    faulty.fails = False
    before = clock.now
    lease.check()
    assert clock.now - before >= SETTLE_SECONDS
    lease.check()


def test_a_driver_that_was_cut_off_has_lost_to_one_that_takes_over_meanwhile(faulty: Faulty) -> None:
    clock = Clock()
    lease = stored(faulty, clock, elsewhere("a"))
    lease.take()
    faulty.fails = True
    other = stored(Folder(faulty.location), clock, elsewhere("b"))
    other.take()
    with pytest.raises(RunFolderError, match="does not answer"):
        lease.check()
    faulty.fails = False
    with pytest.raises(RunFolderError, match="took over"):
        lease.beat()
    with pytest.raises(RunFolderError, match="took over"):
        lease.check()
    other.check()


def test_a_beat_that_arrives_late_harms_only_its_own_driver(faulty: Faulty) -> None:
    clock = Clock()
    lease = stored(faulty, clock, elsewhere("a"))
    lease.take()
    other = stored(Folder(faulty.location), clock, elsewhere("b"))
    faulty.before_write = other.take
    with pytest.raises(RunFolderError, match="renewed so late"):
        lease.beat()
    with pytest.raises(RunFolderError, match="renewed so late"):
        lease.check()
    lease.release()
    other.check()
    other.beat()
    assert b'"b"' in (faulty.read(LEASE_FILE) or b"")


def test_a_beat_that_failed_and_arrives_all_the_same_harms_only_its_own_driver(faulty: Faulty) -> None:
    clock = Clock()
    lease = stored(faulty, clock, elsewhere("a"))
    lease.take()

    def fail() -> None:
        raise RunFolderError("the storage does not answer")

    faulty.before_write = fail
    with pytest.raises(RunFolderError, match="does not answer"):
        lease.beat()
    faulty.before_write = lambda: None
    other = stored(Folder(faulty.location), clock, elsewhere("b"))
    other.take()
    faulty.write(LEASE_FILE, elsewhere("a").encode(99))
    with pytest.raises(RunFolderError, match="renewed so late"):
        lease.check()
    other.check()


def test_who_took_long_to_write_waits_for_whoever_may_have_come_first(faulty: Faulty) -> None:
    clock = Clock()
    arrived: list[float] = []

    def slowly() -> None:
        if not arrived:
            clock.sleep(WATCH_SECONDS)
            arrived.append(clock.now)

    faulty.before_write = slowly
    stored(faulty, clock, elsewhere("a")).take()
    assert clock.now - arrived[0] >= WATCH_SECONDS


def test_a_lease_is_good_from_the_moment_at_which_its_beat_began(faulty: Faulty) -> None:
    clock = Clock()
    lease = stored(faulty, clock, elsewhere("a"))
    faulty.before_write = lambda: clock.sleep(2)
    lease.take()
    faulty.before_write = lambda: None
    clock.sleep(LEASE_SECONDS - 2)
    before = clock.now
    lease.check()
    assert clock.now - before >= SETTLE_SECONDS


def test_who_was_taken_over_without_noticing_leaves_the_other_its_lease(faulty: Faulty) -> None:
    first, second = stored(faulty, Clock(), elsewhere("a")), stored(faulty, Clock(), elsewhere("b"))
    first.take()
    second.take()
    first.release()
    second.check()


def test_who_finds_its_lease_removed_writes_no_more(faulty: Faulty) -> None:
    lease = stored(faulty, Clock(), elsewhere("a"))
    lease.take()
    faulty.remove(LEASE_FILE)
    for act in (lease.check, lease.beat, lease.check):
        with pytest.raises(RunFolderError, match="was removed during the run"):
            act()
    assert not faulty.exists(LEASE_FILE)


def test_storage_that_never_answers_in_time_is_named(faulty: Faulty) -> None:
    clock = Clock()

    def slow() -> float:
        clock.sleep(LEASE_SECONDS)
        return clock.now

    with pytest.raises(RunFolderError, match=r"lease\.json' cannot be renewed in time") as error:
        StoredLease(faulty, elsewhere("a"), clock=slow, sleep=clock.sleep).take()
    assert is_one_line(error)


def test_a_process_of_this_machine_is_not_mistaken_for_a_dead_one_elsewhere(faulty: Faulty) -> None:
    """Process ids are valid only within their machine and process namespace."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = this_driver()
    nowhere = replace(here, machine=None)
    for machine, pid, driver, watched in (
        (here.machine, ended.pid, here, False),
        (here.machine, os.getppid(), here, True),
        ("another boot", ended.pid, here, True),
        (None, ended.pid, here, True),
        (None, ended.pid, nowhere, True),
    ):
        clock = Clock()
        faulty.write(LEASE_FILE, Driver("a", "h", pid, "s", machine).encode(1))
        stored(faulty, clock, driver).take()
        assert (clock.now - 1000 > WATCH_SECONDS) == watched


def test_nothing_in_a_lease_reaches_the_terminal_as_more_than_plain_text(faulty: Faulty) -> None:
    clock = Clock()
    first = stored(faulty, clock, Driver("a", "\x1b[2Jh\n" + "x" * 9999, 7, "\r\x07", None))
    first.take()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        first.beat()

    with pytest.raises(RunFolderError, match=r"process 7 on \?\[2Jh\?x+ since \?\?") as error:
        StoredLease(faulty, elsewhere("b"), clock=lambda: clock.now, sleep=sleep).take()
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


# The protocol, in simulated time: many histories of storage that is slow or fails, and drivers that pause.


class World:
    """Threads that take turns: only the one whose moment comes next runs, and time passes in their sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self._turn = threading.Condition()
        self._waiting: list[tuple[float, int]] = []
        self._numbers = itertools.count()
        self._next: tuple[float, int] | None = None
        self._busy = 0

    def sleep(self, seconds: float) -> None:
        with self._turn:
            mine = (self.now + seconds, next(self._numbers))
            heapq.heappush(self._waiting, mine)
            self._pass_on()
            self._turn.wait_for(lambda: self._next == mine)

    def run(self, actors: list[Callable[[], None]]) -> None:
        def act(actor: Callable[[], None]) -> None:
            self.sleep(0)
            actor()
            with self._turn:
                self._pass_on()

        self._busy = len(actors)
        threads = [threading.Thread(target=act, args=(actor,)) for actor in actors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _pass_on(self) -> None:
        self._busy -= 1
        if not self._busy and self._waiting:
            self._next = heapq.heappop(self._waiting)
            self.now, self._busy = self._next[0], 1
            self._turn.notify_all()


@dataclass(frozen=True)
class Faults:
    """The probabilities that a step takes up to 9 s, takes up to 90 s, and fails after that."""

    slow: float = 0.0
    pause: float = 0.0
    fail: float = 0.0


class SimulatedStorage(Folder):
    """Time passes, and faults occur, before and after every call takes effect."""

    def __init__(self, files: dict[str, bytes], step: Callable[[], None]) -> None:
        super().__init__("/simulated")
        self._files = files
        self._step = step

    def read(self, name: str) -> bytes | None:
        self._step()
        content = self._files.get(name)
        self._step()
        return content

    def write(self, name: str, content: bytes) -> None:
        self._step()
        self._files[name] = content
        self._step()

    def remove(self, name: str) -> None:
        self._step()
        self._files.pop(name, None)
        self._step()


def history(seed: int, faults: Faults, starts: float, released: float) -> list[tuple[str, int]]:
    """The events of five drivers, in the order in which it happened: ("held", driver), ("wrote", driver).
    They start within `starts` seconds, and this share of them releases the folder at the end."""
    world, files, events = World(), dict[str, bytes](), list[tuple[str, int]]()

    def driver(number: int) -> Callable[[], None]:
        draw = random.Random(f"{seed}/{number}")

        def step() -> None:
            kind = draw.random()
            slowest = 90 if kind < faults.pause else 9 if kind < faults.pause + faults.slow else 0.3
            world.sleep(draw.uniform(0, slowest))
            if draw.random() < faults.fail:
                raise RunFolderError("the storage does not answer")

        def run() -> None:
            world.sleep(draw.uniform(0, starts))
            lease = StoredLease(
                SimulatedStorage(files, step),
                elsewhere(str(number)),
                clock=lambda: world.now,
                sleep=world.sleep,
            )
            with contextlib.suppress(RunFolderError):
                lease.take()
                events.append(("held", number))
                work(lease)
            if draw.random() < released:
                lease.release()

        def work(lease: StoredLease) -> None:
            for _ in range(draw.randrange(3, 30)):
                world.sleep(draw.uniform(0, 90 if draw.random() < faults.pause else 6))
                with contextlib.suppress(RunFolderError):
                    lease.beat()
                with contextlib.suppress(RunFolderError):
                    lease.check()
                    events.append(("wrote", number))

        return run

    world.run([driver(number) for number in range(5)])
    return events


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults",
    [Faults(), Faults(slow=0.2), Faults(slow=0.1, fail=0.1), Faults(slow=0.1, pause=0.05, fail=0.02)],
    ids=["calm", "slow", "failing", "pausing"],
)
@pytest.mark.parametrize("starts", [0.0, 1.0, 200.0])
def test_once_a_driver_holds_a_folder_no_earlier_one_writes(faults: Faults, starts: float) -> None:
    held = wrote = 0
    for seed in range(40):
        holders: list[int] = []
        for what, number in history(seed, faults, starts, released=0.5):
            if what == "held":
                holders.append(number)
            else:
                assert number == holders[-1]
                wrote += 1
        held += bool(holders)
    assert held
    assert wrote


@pytest.mark.parametrize("starts", [0.0, 0.3, 1.0, 5.0])
def test_of_drivers_that_start_together_exactly_one_holds_the_folder(starts: float) -> None:
    for seed in range(40):
        events = history(seed, Faults(), starts, released=0.0)
        assert len({number for _, number in events}) == 1
