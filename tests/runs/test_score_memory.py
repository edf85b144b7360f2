"""Scores are computed once: within a run, in concurrent calls, and after a stop."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pmpo_ray.errors import DataError, EngineError, RunFolderError
from pmpo_ray.evaluation.evaluators import LikelihoodEvaluator
from pmpo_ray.runs.score_memory import RememberingScorer, ScoreMemory, saving
from pmpo_ray.search.loop import SearchOutcome, search_task
from pmpo_ray.store import RunStore
from pmpo_ray.store.scores import KEY_BYTES
from pmpo_ray.types import AnswerScore, EngineInfo, Example, ExampleScore, RoundRecord, ScoreRequest
from tests.search.test_loop import DriverDiedError, LocalScorer, setup_of

INFO = EngineInfo("transformers", "org/model", "abc123", 135_000_000, 8192, "chat", "float32", "cpu")
A, B, C, D = (Example(name, f"question {name}", "yes", ("no", "perhaps")) for name in "abcd")
SHOT = Example("s", "a shown question", "yes", ("no",))


@dataclass
class CountingScorer:
    """A ScoreClient that records its requests and can be held up. The score differs between instructions,
    shots and examples."""

    requests: list[ScoreRequest] = field(default_factory=list)
    open: asyncio.Event | None = None

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        self.requests.append(request)
        if self.open is not None:
            await self.open.wait()
        return tuple(self.one(request.instruction, example, request.shots) for example in request.examples)

    def one(self, instruction: str, example: Example, shots: Sequence[Example]) -> ExampleScore:
        def answer(text: str) -> AnswerScore:
            digest = hashlib.sha256(repr((instruction, example, shots, text)).encode()).digest()
            return AnswerScore(-math.sqrt(int.from_bytes(digest[:6])), digest[6])

        return ExampleScore(answer(example.target), tuple(map(answer, example.negatives)), 17)


class BrokenScorer(CountingScorer):
    """Cannot score examples whose id is in `broken`."""

    broken: tuple[str, ...] = ("b",)

    def one(self, instruction: str, example: Example, shots: Sequence[Example]) -> ExampleScore:
        if example.id in self.broken:
            raise EngineError(f"example {example.id} is longer than the context")
        return super().one(instruction, example, shots)


def remembering(inner: CountingScorer, memory: ScoreMemory | None = None) -> RememberingScorer:
    return RememberingScorer(inner, INFO, ScoreMemory() if memory is None else memory)


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_remembered_score_is_returned_bit_for_bit() -> None:
    inner = CountingScorer()
    scorer = remembering(inner)
    first = await scorer.score(ScoreRequest("Do it.", (A, B), (SHOT,)))
    assert first == await CountingScorer().score(ScoreRequest("Do it.", (A, B), (SHOT,)))
    assert await scorer.score(ScoreRequest("Do it.", (A, B), (SHOT,))) == first
    assert await scorer.score(ScoreRequest("Do it.", (B,), (SHOT,))) == first[1:]
    assert len(inner.requests) == 1


async def test_missing_scores_are_computed_in_one_call_and_in_order() -> None:
    inner = CountingScorer()
    scorer = remembering(inner)
    await scorer.score(ScoreRequest("Do it.", (B,)))
    scores = await scorer.score(ScoreRequest("Do it.", (A, B, C, D)))
    assert [request.examples for request in inner.requests] == [(B,), (A, C, D)]
    assert scores == await CountingScorer().score(ScoreRequest("Do it.", (A, B, C, D)))


async def test_if_no_score_is_known_the_request_is_passed_on_unchanged() -> None:
    inner = CountingScorer()
    request = ScoreRequest("Do it.", (A, B), (SHOT,))
    await remembering(inner).score(request)
    assert inner.requests[0] is request
    assert await remembering(inner).score(ScoreRequest("Do it.", ())) == ()


async def test_examples_of_the_same_contents_are_scored_once_whatever_their_id_and_weight() -> None:
    inner = CountingScorer()
    scorer = remembering(inner)
    twin = replace(A, id="other", weight=-2.0)
    scores = await scorer.score(ScoreRequest("Do it.", (A, B, twin, A)))
    assert [len(request.examples) for request in inner.requests] == [2]
    assert scores[0] == scores[2] == scores[3] != scores[1]
    await scorer.score(ScoreRequest("Do it.", (twin,), (SHOT,)))
    await scorer.score(ScoreRequest("Do it.", (A,), (replace(SHOT, id="t", weight=3.0, negatives=()),)))
    assert len(inner.requests) == 2


OTHER_REQUESTS = [
    ("Do it!", A, (SHOT,)),
    ("Do it.", A, ()),
    ("Do it.", A, (SHOT, SHOT)),
    ("Do it.", A, (replace(SHOT, input="another"),)),
    ("Do it.", A, (replace(SHOT, target="another"),)),
    ("Do it.", replace(A, input="question"), (SHOT,)),
    ("Do it.", replace(A, target="Yes"), (SHOT,)),
    ("Do it.", replace(A, negatives=("perhaps", "no")), (SHOT,)),
    ("Do it.", replace(A, negatives=("no perhaps",)), (SHOT,)),
    ("Do it.", replace(A, target='yes","no'), (SHOT,)),
    ("Do it.", replace(A, input="question ", target="a yes"), (SHOT,)),
]


@pytest.mark.parametrize(("instruction", "example", "shots"), OTHER_REQUESTS)
async def test_everything_that_a_score_depends_on_is_in_its_key(
    instruction: str, example: Example, shots: tuple[Example, ...]
) -> None:
    inner = CountingScorer()
    scorer = remembering(inner)
    await scorer.score(ScoreRequest("Do it.", (A,), (SHOT,)))
    await scorer.score(ScoreRequest(instruction, (example,), shots))
    assert len(inner.requests) == 2


async def test_lone_surrogates_are_not_the_character_that_they_spell() -> None:
    inner = CountingScorer()
    scorer = remembering(inner)
    for instruction in ("\U0001f600", "\ud83d" + "\ude00", "\\ud83d\\ude00"):
        await scorer.score(ScoreRequest(instruction, (A,)))
    assert len(inner.requests) == 3


@pytest.mark.parametrize("changed", ["engine", "model", "revision", "layout", "dtype", "encoding"])
async def test_scores_of_another_scorer_are_not_returned(changed: str) -> None:
    inner, memory = CountingScorer(), ScoreMemory()
    await RememberingScorer(inner, INFO, memory).score(ScoreRequest("Do it.", (A,)))
    await RememberingScorer(inner, replace(INFO, device="cuda"), memory).score(ScoreRequest("Do it.", (A,)))
    assert len(inner.requests) == 1
    await RememberingScorer(inner, replace(INFO, **{changed: "other"}), memory).score(
        ScoreRequest("Do it.", (A,))
    )
    assert len(inner.requests) == 2


async def test_concurrent_calls_share_the_computation_of_a_score() -> None:
    inner = CountingScorer(open=asyncio.Event())
    scorer = remembering(inner)
    calls = [
        asyncio.create_task(scorer.score(ScoreRequest("Do it.", wanted)))
        for wanted in ((A, B), (B, C), (C, A))
    ]
    await settle()
    assert [request.examples for request in inner.requests] == [(A, B), (C,)]
    assert inner.open is not None
    inner.open.set()
    a, b, c = await CountingScorer().score(ScoreRequest("Do it.", (A, B, C)))
    assert await asyncio.gather(*calls) == [(a, b), (b, c), (c, a)]
    assert len(inner.requests) == 2


async def test_a_fault_of_another_example_does_not_reach_a_call_that_waited() -> None:
    inner = BrokenScorer(open=asyncio.Event())
    scorer = remembering(inner)
    first = asyncio.create_task(scorer.score(ScoreRequest("Do it.", (A, B))))
    await settle()
    second = asyncio.create_task(scorer.score(ScoreRequest("Do it.", (A, C))))
    await settle()
    assert inner.open is not None
    inner.open.set()
    with pytest.raises(EngineError, match="example b"):
        await first
    assert await second == await CountingScorer().score(ScoreRequest("Do it.", (A, C)))
    assert [request.examples for request in inner.requests] == [(A, B), (C,), (A,)]


async def test_a_call_that_waited_for_a_failing_example_gets_the_error_too() -> None:
    inner = BrokenScorer(open=asyncio.Event())
    scorer = remembering(inner)
    calls = [asyncio.create_task(scorer.score(ScoreRequest("Do it.", (B,)))) for _ in range(3)]
    await settle()
    assert inner.open is not None
    inner.open.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineError] * 3


async def test_errors_are_not_remembered() -> None:
    inner = BrokenScorer()
    scorer = remembering(inner)
    with pytest.raises(EngineError):
        await scorer.score(ScoreRequest("Do it.", (A, B)))
    inner.broken = ()
    assert await scorer.score(ScoreRequest("Do it.", (A, B))) == await CountingScorer().score(
        ScoreRequest("Do it.", (A, B))
    )
    assert len(inner.requests) == 2


async def test_a_cancelled_call_leaves_its_work_to_those_that_waited() -> None:
    inner = CountingScorer(open=asyncio.Event())
    scorer = remembering(inner)
    calls = [asyncio.create_task(scorer.score(ScoreRequest("Do it.", (A, B)))) for _ in range(3)]
    await settle()
    calls[0].cancel()
    await settle()
    assert [request.examples for request in inner.requests] == [(A, B), (A, B)]
    assert inner.open is not None
    inner.open.set()
    expected = await CountingScorer().score(ScoreRequest("Do it.", (A, B)))
    assert await asyncio.gather(*calls[1:]) == [expected, expected]
    assert calls[0].cancelled()
    assert len(inner.requests) == 2


async def test_a_cancelled_call_that_waited_leaves_the_computation_alone() -> None:
    inner = CountingScorer(open=asyncio.Event())
    scorer = remembering(inner)
    calls = [asyncio.create_task(scorer.score(ScoreRequest("Do it.", (A,)))) for _ in range(3)]
    await settle()
    calls[1].cancel()
    await settle()
    assert inner.open is not None
    inner.open.set()
    expected = await CountingScorer().score(ScoreRequest("Do it.", (A,)))
    assert [await calls[0], await calls[2]] == [expected, expected]
    assert calls[1].cancelled()
    assert len(inner.requests) == 1


class OddScorer(CountingScorer):
    """Returns a special score for one example, and can lose the last score."""

    odd = ExampleScore(AnswerScore(-math.inf, 1), (AnswerScore(-1.0, 1), AnswerScore(-2.0, 1)), 3)
    short = False

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        scores = await super().score(request, rounds_left=rounds_left)
        return scores[:-1] if self.short else scores

    def one(self, instruction: str, example: Example, shots: Sequence[Example]) -> ExampleScore:
        return self.odd if example == B else super().one(instruction, example, shots)


@pytest.mark.parametrize("place", ["target", "negative"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
async def test_a_score_that_is_not_finite_is_passed_on_and_not_remembered(value: float, place: str) -> None:
    inner, memory = OddScorer(), ScoreMemory()
    if place == "target":
        inner.odd = replace(inner.odd, target=AnswerScore(value, 1))
    else:
        inner.odd = replace(inner.odd, negatives=(AnswerScore(-1.0, 1), AnswerScore(value, 1)))
    scorer = remembering(inner, memory)
    scores = await scorer.score(ScoreRequest("Do it.", (A, B, B)))
    assert scores[1] is inner.odd
    assert scores[2] is inner.odd
    assert (await scorer.score(ScoreRequest("Do it.", (A, B))))[1] is inner.odd
    assert [request.examples for request in inner.requests] == [(A, B), (B,)]
    assert len(memory) == 1


async def test_a_wrong_number_of_scores_is_an_error() -> None:
    inner, memory = OddScorer(), ScoreMemory()
    scorer = remembering(inner, memory)
    await scorer.score(ScoreRequest("Do it.", (C,)))
    inner.short = True
    with pytest.raises(ValueError, match="shorter"):
        await scorer.score(ScoreRequest("Do it.", (C, A, D)))
    assert len(memory) == 1


# Saving


class Saves(list[dict[bytes, bytes]]):
    """Keeps the saved scores, and signals every save."""

    def __init__(self) -> None:
        self.saved = threading.Semaphore(0)

    def save(self, packed: Mapping[bytes, bytes]) -> None:
        self.append(dict(packed))
        self.saved.release()

    def all(self) -> dict[bytes, bytes]:
        return {key: packed for part in self for key, packed in part.items()}


async def test_a_memory_of_saved_scores_returns_the_same_scores() -> None:
    saves, memory = Saves(), ScoreMemory()
    async with saving(memory, saves.save):
        first = await remembering(CountingScorer(), memory).score(ScoreRequest("Do it.", (A, B), (SHOT,)))
    assert [len(part) for part in saves] == [2]
    inner = CountingScorer()
    assert (
        await remembering(inner, ScoreMemory(saves.all())).score(ScoreRequest("Do it.", (A, B), (SHOT,)))
        == first
    )
    assert not inner.requests


async def test_new_scores_are_saved_during_the_run_and_each_once() -> None:
    saves, memory = Saves(), ScoreMemory()
    scorer = remembering(CountingScorer(), memory)
    async with saving(memory, saves.save, interval=0.001):
        for wanted in [(A, B), (B, C), (A, D)]:
            await scorer.score(ScoreRequest("Do it.", wanted))
            assert await asyncio.to_thread(saves.saved.acquire, timeout=30)
        await scorer.score(ScoreRequest("Do it.", (A, B, C, D)))
        await asyncio.sleep(0.01)
    assert [len(part) for part in saves] == [2, 1, 1]
    assert len(saves.all()) == 4


async def test_the_last_scores_are_saved_when_the_run_fails_or_is_cancelled() -> None:
    async def run(saves: Saves, error: Exception | None) -> None:
        memory = ScoreMemory()
        async with saving(memory, saves.save):
            await remembering(CountingScorer(), memory).score(ScoreRequest("Do it.", (A,)))
            if error is not None:
                raise error
            await asyncio.Event().wait()

    failed, cancelled = Saves(), Saves()
    with pytest.raises(DataError, match="broken row"):
        await run(failed, DataError("broken row"))
    task = asyncio.create_task(run(cancelled, None))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(failed.all()) == len(cancelled.all()) == 1


async def test_scores_that_cannot_be_saved_end_the_run() -> None:
    def save(packed: Mapping[bytes, bytes]) -> None:
        raise RunFolderError("the disk is full")

    memory = ScoreMemory()
    scorer = remembering(CountingScorer(), memory)
    with pytest.raises(RunFolderError, match="disk is full"):
        async with saving(memory, save):
            await scorer.score(ScoreRequest("Do it.", (A,)))


async def test_a_run_whose_scores_cannot_be_saved_does_not_wait_for_its_end() -> None:
    failed = threading.Event()

    def save(packed: Mapping[bytes, bytes]) -> None:
        failed.set()
        raise RunFolderError("the disk is full")

    async def run() -> None:
        memory = ScoreMemory()
        scorer = remembering(CountingScorer(), memory)
        async with saving(memory, save, interval=0.001):
            for step in itertools.count():
                await scorer.score(ScoreRequest(f"Do step {step}.", (A,)))
                assert await asyncio.to_thread(failed.wait, 30)

    with pytest.raises(RunFolderError, match="disk is full"):
        await asyncio.wait_for(run(), 60)


# A search that was stopped


class DyingScorer(LocalScorer):
    """A scorer whose driver dies at the call after `lives` ones, which cancels the calls in flight."""

    lives = 10_000

    def __init__(self) -> None:
        super().__init__()
        self.computed: list[tuple[str, Example]] = []

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        if len(self.seen) == self.lives:
            raise DriverDiedError
        scores = await super().score(request, rounds_left=rounds_left)
        self.computed += [(request.instruction, example) for example in request.examples]
        return scores


async def searched(
    folder: Path, scorer: DyingScorer, kept: list[RoundRecord], mask_mode: str
) -> SearchOutcome:
    """Continue a search from `kept` and from the scores in the run folder."""
    location = str(folder)
    store = RunStore.open(location) if RunStore.exists(location) else RunStore.create(location, "")
    memory = ScoreMemory(store.join_scores())
    setup = setup_of(kept=kept, mask_mode=mask_mode, population=2)
    async with saving(memory, store.write_scores):
        client = RememberingScorer(scorer, scorer.engine.info(), memory)
        outcome = await search_task(replace(setup, scorer=client), kept.copy())
        evaluator = LikelihoodEvaluator(client, setup.objective)
        await evaluator.evaluate(outcome.best.candidate.text, setup.split.test, setup.split.shots)
        return outcome


@pytest.mark.parametrize("mask_mode", ["drop", "token"])
@pytest.mark.parametrize("lives", [1, 4, 9])
async def test_a_search_killed_in_a_round_and_continued_scores_nothing_twice(
    tmp_path: Path, lives: int, mask_mode: str
) -> None:
    undisturbed, first, second = DyingScorer(), DyingScorer(), DyingScorer()
    whole = await searched(tmp_path / "whole", undisturbed, [], mask_mode)
    kept: list[RoundRecord] = []
    first.lives = lives
    with pytest.raises(DriverDiedError):
        await searched(tmp_path / "run", first, kept, mask_mode)
    continued = await searched(tmp_path / "run", second, kept, mask_mode)
    pairs = first.computed + second.computed
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == set(undisturbed.computed)
    # Everything except the duration, which depends on the clock.
    assert [replace(record, seconds=0.0) for record in continued.records] == [
        replace(record, seconds=0.0) for record in whole.records
    ]


async def test_a_finished_search_and_its_evaluation_compute_nothing_when_repeated(tmp_path: Path) -> None:
    first, again = DyingScorer(), DyingScorer()
    outcome = await searched(tmp_path / "run", first, [], "drop")
    assert first.computed
    assert replace(await searched(tmp_path / "run", again, [], "drop"), records=()) == replace(
        outcome, records=()
    )
    assert not again.computed


def test_a_memory_is_bounded_and_forgets_the_oldest() -> None:
    score = ExampleScore(AnswerScore(-1.0, 1), (AnswerScore(-2.0, 1),), 3)
    keys = [bytes([number]) * KEY_BYTES for number in range(100)]
    memory = ScoreMemory(limit=40)
    for key in keys:
        memory.add({key: score})
    assert 40 <= len(memory) <= 45
    assert memory.get(keys[0]) is None
    assert all(memory.get(key) == score for key in keys[-40:])
    # Forgotten scores were still saved.
    assert set(memory.take_unsaved()) == set(keys)
