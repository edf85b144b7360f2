"""Synchronous engines on an event loop: each in a thread of its own.

Invariants: an engine is created and used in one thread only; the loop stays free while the engine works;
every call of `generate` gets its own result or error, whatever it was batched with.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pmpo_ray.engines.lengths import prompt_lengths
from pmpo_ray.errors import DataError, EngineError
from pmpo_ray.protocols import Generator, Scorer
from pmpo_ray.types import (
    EngineInfo,
    GenerateRequest,
    GenerateResult,
    PromptLength,
    ScoreRequest,
    ScoreResult,
)

JOIN_SECONDS = 0.02
"""Time that an idle engine waits for calls that were sent with the first: short next to the seconds that a
batch takes, and those calls need not wait for the next batch."""


class ThreadedScorer:
    """An AsyncScorer from a `Scorer` that belongs to `thread`."""

    def __init__(self, engine: Scorer, thread: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._thread = thread

    def info(self) -> EngineInfo:
        return self._engine.info()

    async def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...] | None:
        """As in `Measurer.lengths`; None if the engine does not tell."""
        return await prompt_lengths(self._engine, request, self._thread)

    async def score(self, request: ScoreRequest) -> ScoreResult:
        """As in `Scorer.score`; requests take turns."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.score, request)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    request: GenerateRequest
    result: asyncio.Future[GenerateResult]


class ThreadedGenerator:
    """An AsyncGenerator from a `Generator` that belongs to `thread`. Calls that wait while the engine is busy
    form its next batch, up to `limit` samples."""

    def __init__(self, engine: Generator, limit: int, thread: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._limit = limit
        self._thread = thread
        self._waiting: deque[_Call] = deque()
        self._worker: asyncio.Task[None] | None = None

    def info(self) -> EngineInfo:
        return self._engine.info()

    async def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...] | None:
        """As in `ThreadedScorer.lengths`."""
        return await prompt_lengths(self._engine, request, self._thread)

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """The samples of `request`. Errors as in `Generator.generate`."""
        call = _Call(request, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await call.result

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        await asyncio.sleep(JOIN_SECONDS)
        while self._waiting:
            await self._answer(self._next_batch())

    def _next_batch(self) -> list[_Call]:
        """The oldest waiting calls, up to the limit, at least one."""
        batch = [self._waiting.popleft()]
        samples = batch[0].request.n
        while self._waiting and samples + self._waiting[0].request.n <= self._limit:
            batch.append(self._waiting.popleft())
            samples += batch[-1].request.n
        return batch

    async def _answer(self, batch: list[_Call]) -> None:
        loop = asyncio.get_running_loop()
        outcome = loop.run_in_executor(self._thread, self._generate, [call.request for call in batch])
        await asyncio.wait([outcome])
        error = outcome.exception()
        if isinstance(error, EngineError | DataError) and len(batch) > 1:
            # One of the requests is at fault; running each alone shows which.
            for call in batch:
                await self._answer([call])
            return
        answers = outcome.result() if error is None else []
        for position, call in enumerate(batch):
            if call.result.done():
                continue
            if error is None:
                call.result.set_result(answers[position])
            else:
                call.result.set_exception(error)

    def _generate(self, requests: list[GenerateRequest]) -> list[GenerateResult]:
        results = self._engine.generate(requests)
        if len(results) != len(requests):
            raise RuntimeError(f"the engine gave {len(results)} results for {len(requests)} requests")
        return results
