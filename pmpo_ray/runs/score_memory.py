"""Memory of scores: a score is computed once, within a run and across its continuations.

Invariants:
- A score is remembered under everything that it depends on: the scorer's engine, model, revision, layout,
  dtype and encoding of prompts, the instruction, the contents of the shots, and the example's input, target
  and negatives, but not the example's id and weight. So the scores of another scorer or of other data are
  never returned by mistake.
- A remembered score equals, bit for bit, the one that was first returned.
- Only finite scores are remembered; errors never are.
- A score is charged (`ExampleScore.tokens`) whether it was remembered or computed. A continued search
  remembers more than an uninterrupted one, and must still arrive at the same budgets and records.

A score with 5 answers takes 223 bytes (measured; 100 MB for 460,000 scores), and 12 more for each further
answer. The memory is bounded: beyond SCORES_KEPT the oldest scores are forgotten, which belong to rounds that
finished long ago.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from pmpo_ray.errors import RunFolderError
from pmpo_ray.protocols import ScoreClient
from pmpo_ray.store.scores import KEY_BYTES, forget_oldest, pack, unpack
from pmpo_ray.types import EngineInfo, Example, ExampleScore, ScoreRequest

SAVE_SECONDS = 10.0
"""Time between two writes. A killed process loses the scores since its last write and those of unanswered
calls. A run of hours leaves a few thousand small files, which are joined when it continues."""
SCORES_KEPT = 2_000_000
"""Scores in memory, under half a gigabyte: 40,000 candidates on 50 examples."""


class ScoreMemory:
    """The newest `limit` scores, packed, by key, and those that are not saved yet.

    `known` holds the scores of earlier processes; new scores are added to this dictionary. Use it only on the
    event loop.
    """

    def __init__(self, known: dict[bytes, bytes] | None = None, limit: int = SCORES_KEPT) -> None:
        self._limit = limit
        self._known = {} if known is None else known
        self._unsaved: dict[bytes, bytes] = {}
        self._failure: RunFolderError | None = None

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: bytes) -> ExampleScore | None:
        packed = self._known.get(key)
        return None if packed is None else unpack(packed)

    def add(self, scores: Mapping[bytes, ExampleScore]) -> None:
        """Remember the finite scores. Raises the RunFolderError passed to `fail`, if any."""
        if self._failure is not None:
            raise self._failure
        new = {key: pack(score) for key, score in scores.items() if _finite(score)}
        self._known |= new
        self._unsaved |= new
        forget_oldest(self._known, self._limit)

    def take_unsaved(self) -> dict[bytes, bytes]:
        """Return the packed scores that were added since the last call."""
        unsaved, self._unsaved = self._unsaved, {}
        return unsaved

    def fail(self, error: RunFolderError) -> None:
        """Let every further `add` raise `error`: a run whose scores cannot be saved must not continue."""
        self._failure = error


class RememberingScorer:
    """A ScoreClient that computes only the scores that `memory` does not hold.

    `inner` computes the scores with the engine `scorer`. Concurrent calls for the same score share one
    computation.
    """

    def __init__(self, inner: ScoreClient, scorer: EngineInfo, memory: ScoreMemory) -> None:
        self._inner = inner
        self._identity = (
            *(scorer.engine, scorer.model, scorer.revision, scorer.layout, scorer.dtype),
            scorer.encoding,
        )
        self._memory = memory
        self._digests: dict[Example, bytes] = {}
        # The scores that are being computed: every key with the outcome of its call.
        self._pending: dict[bytes, asyncio.Future[dict[bytes, ExampleScore]]] = {}

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        """As in `ScoreClient.score`. Missing scores are computed in one call of the inner client, in order.

        Also raises ValueError if the inner client does not return one score per example, and RunFolderError
        if scores cannot be saved.
        """
        keys = self._keys(request)
        requested = dict(zip(keys, request.examples, strict=True))
        scores: dict[bytes, ExampleScore] = {}
        while missing := self._look_up(requested, scores):
            pending = {key: self._pending[key] for key in missing if key in self._pending}
            to_compute = {key: example for key, example in missing.items() if key not in pending}
            if to_compute:
                # A pool sends each set of examples once, so a complete set is passed on unchanged.
                complete = len(to_compute) == len(request.examples)
                part = request if complete else replace(request, examples=tuple(to_compute.values()))
                scores |= await self._compute(tuple(to_compute), part, rounds_left)
            if pending:
                # `wait` leaves the futures alone when this call is cancelled; awaiting them would not.
                await asyncio.wait(set(pending.values()))
                # A call that failed or was cancelled lacks its keys. Its error may concern another example,
                # so the keys are computed here in the next iteration.
                for key, outcome in pending.items():
                    if key in outcome.result():
                        scores[key] = outcome.result()[key]
        return tuple(scores[key] for key in keys)

    def _look_up(
        self, requested: Mapping[bytes, Example], scores: dict[bytes, ExampleScore]
    ) -> dict[bytes, Example]:
        """Add the remembered scores to `scores`, and return the examples that are still missing."""
        missing = {}
        for key, example in requested.items():
            if key in scores:
                continue
            score = self._memory.get(key)
            if score is None:
                missing[key] = example
            else:
                scores[key] = score
        return missing

    async def _compute(
        self, keys: Sequence[bytes], request: ScoreRequest, rounds_left: int
    ) -> dict[bytes, ExampleScore]:
        outcome: asyncio.Future[dict[bytes, ExampleScore]] = asyncio.get_running_loop().create_future()
        self._pending.update(dict.fromkeys(keys, outcome))
        computed: dict[bytes, ExampleScore] = {}
        try:
            scores = await self._inner.score(request, rounds_left=rounds_left)
            computed = dict(zip(keys, scores, strict=True))
            self._memory.add(computed)
        finally:
            for key in keys:
                del self._pending[key]
            outcome.set_result(computed)
        return computed

    def _keys(self, request: ScoreRequest) -> tuple[bytes, ...]:
        shown = [(shot.input, shot.target) for shot in request.shots]
        content = _encoded((self._identity, request.instruction, shown))
        common = hashlib.blake2b(content, digest_size=KEY_BYTES)
        keys = []
        for example in request.examples:
            # The digest has a fixed length, so no other content has the same bytes.
            key = common.copy()
            key.update(self._digest(example))
            keys.append(key.digest())
        return tuple(keys)

    def _digest(self, example: Example) -> bytes:
        if example not in self._digests:
            content = _encoded((example.input, example.target, example.negatives))
            self._digests[example] = hashlib.blake2b(content, digest_size=KEY_BYTES).digest()
        return self._digests[example]


@asynccontextmanager
async def saving(
    memory: ScoreMemory, save: Callable[[Mapping[bytes, bytes]], None], *, interval: float = SAVE_SECONDS
) -> AsyncIterator[None]:
    """Call `save` with the new scores of `memory`, in a thread, every `interval` seconds and at the end of
    the block, also by an error or a cancellation.

    A RunFolderError of `save` is raised at the end, and until then by every `memory.add`.
    """
    ended = asyncio.Event()
    saver = asyncio.create_task(_save_new(memory, save, ended, interval))
    try:
        yield
    finally:
        ended.set()
        await saver


async def _save_new(
    memory: ScoreMemory, save: Callable[[Mapping[bytes, bytes]], None], ended: asyncio.Event, interval: float
) -> None:
    last = False
    while not last:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), interval)
        # Read before the scores are taken: no new ones are added after the end.
        last = ended.is_set()
        if unsaved := memory.take_unsaved():
            try:
                await asyncio.to_thread(save, unsaved)
            except RunFolderError as error:
                memory.fail(error)
                raise


def _finite(score: ExampleScore) -> bool:
    return all(math.isfinite(answer.logprob) for answer in (score.target, *score.negatives))


def _encoded(content: object) -> bytes:
    """Unique bytes for `content`. With escapes instead of UTF-8, two lone surrogates and the character that
    they form would have the same bytes."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
