"""Every contestant in a separate process, so that its memory is measured separately and it starts cold.

Invariants: a child runs only during its requests and is stopped in between, since even an idle engine's
threads wake up and disturb the timing of others; a child that dies or does not answer costs its contestant's
figures and nothing else; no child outlives its roster.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from benchmarks.scoring import processes
from benchmarks.scoring.contestants import CONTESTANTS, JUDGES, Entry, Ratings
from benchmarks.scoring.workloads import Request
from pmpo_ray.errors import PmpoError

ANSWER_SECONDS = 3600.0
_ROOM_FOR_ALL = 320 << 10
"""Bytes for each entry of the vocabulary that all contestants together need at most: those that keep logits
of whole sequences hold most of it."""


class ContestantLostError(PmpoError):
    """A contestant's process ended or did not answer."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The settings that all contestants share."""

    model: str
    device: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One cold run: the ratings and its seconds."""

    ratings: Ratings
    seconds: float


class Child:
    """The process of one contestant; it begins to load its model at once."""

    def __init__(self, name: str, setting: Setting) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(name, setting, far))
        with _environment(_entry(name).environment):
            self._process.start()
        far.close()
        assert self._process.pid is not None
        self._pid = self._process.pid
        self._note: str | None = None

    def ready(self) -> str:
        """Wait until its model is loaded; its note. Raises ContestantLostError."""
        if self._note is None:
            note = self._receive()
            assert isinstance(note, str)
            self._note = note
            processes.signal_tree(self._pid, signal.SIGSTOP)
        return self._note

    def rate(self, requests: Sequence[Request]) -> Answer:
        """Rate `requests` with nothing cached. Raises ContestantLostError."""
        processes.signal_tree(self._pid, signal.SIGCONT)
        try:
            self._pipe.send(tuple(requests))
        except ConnectionError as error:
            raise self._lost("its process has ended") from error
        answer = self._receive()
        processes.signal_tree(self._pid, signal.SIGSTOP)
        assert isinstance(answer, Answer)
        return answer

    def reset_peak(self) -> None:
        processes.reset_peak(self._pid)

    def peak_mb(self) -> float | None:
        """The peak memory of it and its processes since `reset_peak`."""
        return processes.peak_mb(self._pid)

    def close(self) -> None:
        """End the process."""
        processes.signal_tree(self._pid, signal.SIGCONT)
        self._pipe.close()
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self) -> object:
        try:
            if not self._pipe.poll(ANSWER_SECONDS):
                raise self._lost(f"no answer within {ANSWER_SECONDS:.0f} seconds")
            return self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise self._lost("its process has ended; what it printed says why") from error

    def _lost(self, why: str) -> ContestantLostError:
        return ContestantLostError(f"{self.name}: {why}; its figures are left out")


class Roster:
    """The children that are alive: those of one model, all of them if `concurrent`, else one at a time."""

    def __init__(self) -> None:
        self.concurrent = False
        self._children: dict[tuple[str, Setting], Child] = {}

    def child(self, name: str, setting: Setting) -> Child:
        """The child of that name and setting, ready, started if it isn't there. Raises
        ContestantLostError."""
        for key in list(self._children):
            if key[1].model != setting.model or not (self.concurrent or key == (name, setting)):
                self._children.pop(key).close()
        self.start(name, setting)
        child = self._children[name, setting]
        child.ready()
        return child

    def start(self, name: str, setting: Setting) -> None:
        """Let that child load its model while others run; nothing may be timed until it is ready."""
        if (name, setting) not in self._children:
            self._children[name, setting] = Child(name, setting)

    def drop(self, name: str, setting: Setting) -> None:
        """End that child, if there is one."""
        child = self._children.pop((name, setting), None)
        if child is not None:
            child.close()

    def close(self) -> None:
        while self._children:
            self._children.popitem()[1].close()


def fit_at_once(vocabulary: int) -> bool:
    """True if the machine's memory holds all contestants at once, with a model of that vocabulary."""
    return processes.total_bytes() >= _ROOM_FOR_ALL * vocabulary


@contextmanager
def roster() -> Iterator[Roster]:
    """A roster whose children end with the block."""
    children = Roster()
    try:
        yield children
    finally:
        children.close()


def _entry(name: str) -> Entry:
    return CONTESTANTS[name] if name in CONTESTANTS else JUDGES[name]


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """The environment that a process started in the block inherits: libraries read it when imported."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(name: str, setting: Setting, pipe: Connection) -> None:
    contestant = _entry(name).make(setting.model, setting.device, setting.dtype)
    pipe.send(contestant.note)
    while True:
        try:
            requests = pipe.recv()
        except EOFError:
            return
        contestant.forget()
        began = time.perf_counter()
        ratings = contestant.rate(requests)
        pipe.send(Answer(ratings, time.perf_counter() - began))
