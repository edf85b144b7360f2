"""Scores that were computed once are not computed again, within a run and when it goes on after a stop.

Invariants:
- A score is remembered under everything it depends on: the scorer's engine, model, revision, layout and
  dtype, the instruction, the contents of the shots, and the example's input, target and negatives. An
  example's id and weight are not among them. So a memory of another scorer or other data is never wrong,
  its keys are just never asked for.
- A remembered score equals, bit for bit, the one that was first returned.
- Only finite scores are remembered, and errors never are.
- A score is charged (`ExampleScore.tokens`) whether it was remembered or computed. A continued search has
  more in its memory than an undisturbed one had, and must still come to the same budgets and records.

A memory holds 223 bytes (measured) a score at 5 answers, 100 MB for 460,000, and 12 more for each further
answer. It is bounded: of a run with more scores than SCORES_KEPT the oldest are forgotten, which belong to
rounds that are long finished.
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
"""Between two writes. A killed process loses the scores of its last so many seconds and those of the calls
that were not answered yet; a run of hours leaves a few thousand small files, joined when it goes on."""


SCORES_KEPT = 2_000_000
"""Scores in memory, under half a gigabyte: 40,000 candidates on 50 examples."""


class ScoreMemory:
    """Packed scores by key, the newest `limit` of them, and which are not saved yet.

    `known` are the scores of earlier processes; the memory goes on in this very dictionary. Used on the event
    loop alone.
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
        """Remember the finite ones of `scores`. Raises the RunFolderError for which they cannot be saved."""
        if self._failure is not None:
            raise self._failure
        new = {key: pack(score) for key, score in scores.items() if _finite(score)}
        self._known |= new
        self._unsaved |= new
        forget_oldest(self._known, self._limit)

    def take_unsaved(self) -> dict[bytes, bytes]:
        """The packed scores that were added since the last call."""
        unsaved, self._unsaved = self._unsaved, {}
        return unsaved

    def fail(self, error: RunFolderError) -> None:
        """Let every further `add` raise `error`: a run whose scores are lost on a stop must not go on."""
        self._failure = error


class RememberingScorer:
    """A ScoreClient that asks another one only for what `memory` does not hold.

    `scorer` says what computes the scores. Concurrent calls that want the same score share one computation.
    """

    def __init__(self, inner: ScoreClient, scorer: EngineInfo, memory: ScoreMemory) -> None:
        self._inner = inner
        self._identity = (scorer.engine, scorer.model, scorer.revision, scorer.layout, scorer.dtype)
        self._memory = memory
        self._digests: dict[Example, bytes] = {}
        # What is being computed: every key with the outcome of the call that computes it.
        self._pending: dict[bytes, asyncio.Future[dict[bytes, ExampleScore]]] = {}

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        """As in `ScoreClient.score`. What is missing goes to the inner client as one call, in order.

        Raises besides ValueError if the inner client's answer is not one score an example, and the
        RunFolderError for which scores cannot be saved.
        """
        keys = self._keys(request)
        wanted = dict(zip(keys, request.examples, strict=True))
        found: dict[bytes, ExampleScore] = {}
        while missing := self._look_up(wanted, found):
            shared = {key: self._pending[key] for key in missing if key in self._pending}
            own = {key: example for key, example in missing.items() if key not in shared}
            if own:
                # A pool sends each set of examples once, so a whole set is passed on as it is.
                whole = len(own) == len(request.examples)
                missing_part = request if whole else replace(request, examples=tuple(own.values()))
                found |= await self._compute(tuple(own), missing_part, rounds_left)
            if shared:
                # Unlike awaiting them, this leaves the futures alone when this call is cancelled.
                await asyncio.wait(set(shared.values()))
                # A call that failed or was cancelled leaves its keys out: the fault may lie in another of its
                # examples, so they are computed here in the next turn.
                for key, outcome in shared.items():
                    if key in outcome.result():
                        found[key] = outcome.result()[key]
        return tuple(found[key] for key in keys)

    def _look_up(
        self, wanted: Mapping[bytes, Example], found: dict[bytes, ExampleScore]
    ) -> dict[bytes, Example]:
        """Add to `found` what is remembered; what is then still missing."""
        missing = {}
        for key, example in wanted.items():
            if key in found:
                continue
            score = self._memory.get(key)
            if score is None:
                missing[key] = example
            else:
                found[key] = score
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
            # The digest is of a fixed length, so nothing else ends in it.
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
    """Hand what is new in `memory` to `save`, in a thread, every `interval` seconds and at the end, which
    also an error or a cancellation is.

    A RunFolderError of `save` is raised at the end, and by every `memory.add` before it.
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
        # Asked before the scores are taken: after the end no new ones come.
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
    """`content` as bytes that no other content has. Escapes in place of UTF-8 would make two lone surrogates
    and the character that they spell the same."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
