"""Virtual time: an event loop whose clock jumps to the next thing that happens, and replicas that live in it.

Invariants: waiting on this loop's clock takes no real time, so a run costs only the computation of its
driver; two runs of the same program take the same virtual time.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pmpo_ray.actors.handles import ReplicaFaultError, ReplicaLostError
from pmpo_ray.types import EngineInfo, GenerateResult, ScoreResult

T = TypeVar("T")


class _Skipping(selectors.DefaultSelector):
    """A selector that advances the time instead of waiting if nothing has happened."""

    def __init__(self, skip: Callable[[float], None]) -> None:
        super().__init__()
        self._skip = skip

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # Without a timer there is only real input left to wait for: a thread's result.
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout:
            self._skip(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, which begins at 0 s."""

    def __init__(self) -> None:
        self._virtual = 0.0
        super().__init__(_Skipping(self._skip))

    def time(self) -> float:
        return self._virtual

    def _skip(self, seconds: float) -> None:
        self._virtual += seconds


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, run in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


class VirtualReplica:
    """A replica that answers at once and is busy for as long as its answer says. It works on `slots`
    requests at a time; the others wait in order."""

    def __init__(self, info: EngineInfo, slots: int, answer: Callable[..., Any], name: str) -> None:
        self._info = info
        self._answer = answer
        self._slots = asyncio.Semaphore(slots)
        self._gone = asyncio.get_running_loop().create_future()
        self._name = name

    async def ping(self) -> str:
        return self._name

    async def start(self) -> EngineInfo:
        return self._info

    async def call(self, method: str, *args: object) -> Any:
        # A replica has one kind of work; whatever the method is called, its engine answers.
        work = asyncio.ensure_future(self._work(*args))
        await asyncio.wait({work, self._gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            raise ReplicaLostError("it was ended")
        return work.result()

    def end(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)

    async def _work(self, *args: object) -> Any:
        async with self._slots:
            result: ScoreResult | GenerateResult = self._answer(*args)
            await asyncio.sleep(result.seconds)
            return result


class VirtualLauncher:
    """Makes virtual replicas of the engine `info`, which all `answer` alike, and sums the real processor
    time of the answers."""

    def __init__(self, info: EngineInfo, slots: int, answer: Callable[..., Any]) -> None:
        self._info = info
        self._slots = slots
        self._raw = answer
        self._made = 0
        self.engine_seconds = 0.0

    def launch(self) -> VirtualReplica:
        self._made += 1
        return VirtualReplica(self._info, self._slots, self._timed, f"virtual:{self._made}")

    def missing(self) -> str:
        return "nothing"

    def _timed(self, *args: object) -> Any:
        began = time.process_time()
        try:
            return self._raw(*args)
        except Exception as error:
            raise ReplicaFaultError(f"{type(error).__name__}: {error}") from error
        finally:
            self.engine_seconds += time.process_time() - began
