"""The loop that asks a model to write, with all writers at once over the simulated engine."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from pmpo_ray.config.engines import DEFAULT_MODEL, RewriterConfig, ScorerConfig
from pmpo_ray.errors import EngineError
from pmpo_ray.protocols import Generator, Scorer
from pmpo_ray.search.calibration import Calibration
from pmpo_ray.search.loop import search_task
from pmpo_ray.search.sense import SenseGate
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.search.writing import _KEPT_CHARS
from pmpo_ray.types import (
    WRITING_OPERATORS,
    AnswerScore,
    Candidate,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    Refusal,
    RoundRecord,
    ScoreRequest,
)
from tests.search.test_loop import DriverDiedError, LocalGenerator, LocalScorer, setup_of

ALL = list(WRITING_OPERATORS)


def all_writers(
    scorer: LocalScorer | None = None,
    generator: LocalGenerator | None = None,
    *,
    kept: list[RoundRecord] | None = None,
    **settings: object,
) -> SearchSetup:
    return setup_of(scorer, generator, kept=kept, **{"operators": ALL, "masking": "rules", **settings})


def texts_of(record: RoundRecord) -> list[Candidate | Refusal]:
    """The new texts of a round, refused ones included, by their ids."""
    made = [one.candidate for one in record.candidates if one.candidate.round == record.round]
    return sorted([*made, *record.refusals], key=lambda one: one.id)


def timeless(records: Sequence[RoundRecord]) -> list[RoundRecord]:
    return [replace(record, seconds=0.0) for record in records]


async def test_every_text_names_its_request_and_every_request_its_round() -> None:
    kept: list[RoundRecord] = []
    setup = all_writers(kept=kept, rounds=4, population=2, reasks=2)
    await search_task(setup)
    rows = {example.id for example in setup.split.train}
    assert kept[0].requests == ()
    for record in kept[1:]:
        names = [request.id for request in record.requests]
        assert names == [f"{record.round:03d}.{number:02d}" for number in range(1, len(names) + 1)]
        requests = {request.id: request for request in record.requests}
        asked = Counter(one.request for one in texts_of(record) if one.operator in ALL)
        assert asked == {request.id: request.samples for request in record.requests}
        for one in texts_of(record):
            if one.operator not in ALL:
                assert one.request is None
                continue
            request = requests[one.request or ""]
            assert (request.operator, request.parent, request.hard_case) == (
                *(one.operator, one.parent, one.hard_case),
            )
        for request in record.requests:
            assert set(request.examples) <= rows
            assert request.hard_case is None or request.examples == (request.hard_case,)
    assert {request.operator for request in kept[1].requests} == {*ALL} - {"repair"}
    assert {request.operator for request in kept[2].requests} == {*ALL}


async def test_refused_texts_are_asked_for_again_in_requests_of_their_own() -> None:
    kept: list[RoundRecord] = []
    generator = LocalGenerator()
    await search_task(all_writers(None, generator, kept=kept, rounds=1, reasks=2))
    record = kept[1]
    assert {request.attempt for request in record.requests} == {0, 1, 2}
    wanted = {(one.operator, one.examples): one.samples for one in record.requests if one.attempt == 0}
    accepted: Counter[object] = Counter()
    by_id = {one.id: one for one in record.requests}
    made = Counter(one.candidate.request for one in record.candidates if one.candidate.request)
    for one in record.requests:
        key = one.operator, one.examples
        if one.attempt:
            assert one.samples == wanted[key] - accepted[key] > 0
            first = next(other for other in record.requests if (other.operator, other.examples) == key)
            assert one.prompt == first.prompt
        accepted[key] += made[one.id]
    assert len(by_id) == len(record.requests)
    seeds = [request.seed for request in generator.seen if request.n]
    assert len(set(seeds)) == len(seeds)


async def test_other_writers_change_nothing_of_what_rewriting_asks_first() -> None:
    alone, beside = LocalGenerator(), LocalGenerator()
    await search_task(all_writers(None, alone, rounds=1, reasks=0, operators=["rewrite"]))
    await search_task(all_writers(None, beside, rounds=1, reasks=0))
    assert len(beside.seen) > len(alone.seen)
    assert all(request in beside.seen for request in alone.seen)


class Backwards(LocalGenerator):
    """The later a request is sent, the sooner it is answered."""

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        self.seen.append(request)
        await asyncio.sleep(max(0, 40 - len(self.seen)) / 2_000)
        return self.engine.generate([request])[0]


@pytest.mark.parametrize("limit", [None, 40_000])
async def test_rounds_do_not_depend_on_who_answers_first(limit: int | None) -> None:
    found = []
    for generator in (LocalGenerator(), Backwards()):
        kept: list[RoundRecord] = []
        await search_task(
            all_writers(None, generator, kept=kept, population=2, bandit=True, max_tokens=limit, reasks=2)
        )
        found.append(timeless(kept))
    assert found[0] == found[1]


@pytest.mark.parametrize("order", [ALL[::-1], ["shorten", "compose", "rewrite"]])
async def test_the_order_in_which_operators_are_named_does_not_count(order: list[str]) -> None:
    found = []
    for operators in (order, order[::-1]):
        kept: list[RoundRecord] = []
        await search_task(all_writers(kept=kept, operators=operators, bandit=True))
        found.append(timeless(kept))
    assert found[0] == found[1]


@pytest.mark.parametrize("stop_at", [0, 1, 2, 3])
async def test_a_continued_search_equals_an_undisturbed_one(stop_at: int) -> None:
    settings = {"rounds": 4, "population": 2, "bandit": True, "racing": 0.2}
    whole: list[RoundRecord] = []
    await search_task(all_writers(kept=whole, **settings))
    kept: list[RoundRecord] = []
    with pytest.raises(DriverDiedError):
        await search_task(setup_of(kept=kept, die_after=stop_at, operators=ALL, masking="rules", **settings))
    # A run folder gives the rounds back without their requests.
    await search_task(all_writers(kept=kept, **settings), [replace(one, requests=()) for one in kept])
    assert timeless(kept) == timeless(whole)


async def test_a_bandit_shares_the_proposals_of_all_writers() -> None:
    kept: list[RoundRecord] = []
    setup = all_writers(kept=kept, rounds=5, bandit=True, reasks=0, masking="off")
    await search_task(setup)
    each = setup.settings.hard_examples * setup.settings.variants
    for record in kept[1:]:
        made = Counter(one.operator for one in texts_of(record))
        assert sum(made.values()) <= each * len(ALL)
    # What has nothing to propose yet gets its floor, and then its part.
    assert "repair" not in Counter(one.operator for one in texts_of(kept[1]))
    assert Counter(one.operator for one in texts_of(kept[2]))["repair"] >= 3


@dataclass
class Choosy(LocalGenerator):
    """Cannot answer the requests of one writer."""

    word: str = ""

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        if self.word in request.prompt:
            raise EngineError("the prompt leaves no room")
        return await super().generate(request, rounds_left=rounds_left)


async def test_a_request_that_fails_fails_alone() -> None:
    kept: list[RoundRecord] = []
    await search_task(all_writers(None, Choosy(word="in half as many words"), kept=kept, rounds=1, reasks=0))
    made: dict[str, set[str]] = {}
    for one in kept[1].refusals:
        made.setdefault(one.operator, set()).add(one.reason)
    assert made["shorten"] == {"the prompt leaves no room"}
    assert all(
        "the prompt leaves no room" not in reasons for name, reasons in made.items() if name != "shorten"
    )
    assert "shorten" in {request.operator for request in kept[1].requests}


async def test_a_budget_shrinks_every_writer_alike_and_is_not_exceeded() -> None:
    kept: list[RoundRecord] = []
    limit = 30_000
    outcome = await search_task(all_writers(kept=kept, max_tokens=limit, rounds=20))
    assert sum(record.tokens for record in kept) <= limit
    assert outcome.stopped == "token budget"
    first = Counter(one.operator for one in texts_of(kept[1]) if one.operator in ALL)
    assert set(first) == {*ALL} - {"repair"}


async def test_a_very_long_meta_prompt_is_kept_without_its_middle() -> None:
    kept: list[RoundRecord] = []
    setup = all_writers(kept=kept, rounds=1)
    long = "Read the message. " + "Decide with care what it is about. " * 2000
    setup = replace(setup, task=replace(setup.task, instruction=long))
    await search_task(setup)
    shown = [request for request in kept[1].requests if request.operator == "rewrite"]
    assert all(len(request.prompt) <= _KEPT_CHARS for request in kept[1].requests)
    assert all(request.prompt.endswith("Say this instruction in better words.") for request in shown)


class Biased(LocalScorer):
    """A model that finds "billing" likelier than any other answer, whatever the input."""

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        scores = await super().score(request, rounds_left=rounds_left)
        return tuple(
            replace(
                score,
                target=more(score.target, example.target),
                negatives=tuple(map(more, score.negatives, example.negatives)),
            )
            for example, score in zip(request.examples, scores, strict=True)
        )


def more(answer: AnswerScore, text: str) -> AnswerScore:
    return replace(answer, logprob=answer.logprob + 20.0 * (text == "billing"))


@pytest.mark.parametrize("calibrate", [False, "inputs"])
async def test_contrast_takes_the_preferred_answer_from_scores_as_the_losses_do(calibrate: object) -> None:
    kept: list[RoundRecord] = []
    setup = all_writers(
        Biased(), kept=kept, operators=["contrast"], rounds=1, hard_examples=12, calibrate=calibrate
    )
    calibration = Calibration.of(setup.task, setup.settings.calibrates)
    await search_task(replace(setup, calibration=calibration))
    rows = {example.id: example for example in setup.split.train}
    shown = {
        match[1]
        for request in kept[1].requests
        if rows[request.examples[0]].target != "billing"
        and (match := re.search(r"^(?:Chosen by mistake|Nearly chosen): (.+)$", request.prompt, re.M))
    }
    assert (shown == {"billing"}) == (calibrate is False)


@dataclass
class RealScorer:
    """A scorer of this process, one request at a time."""

    engine: Scorer

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        return self.engine.score(request).scores


@dataclass
class RealGenerator:
    engine: Generator
    seen: list[GenerateRequest] = field(default_factory=list)

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        self.seen.append(request)
        return self.engine.generate([request])[0]


@pytest.mark.slow
async def test_all_writers_write_with_the_real_small_model() -> None:
    """In round 1 there is no failure that could be repaired, so it comes in round 2."""
    from pmpo_ray.engines.factory import create_generator, create_scorer

    kept: list[RoundRecord] = []
    setup = all_writers(
        kept=kept, rounds=2, hard_examples=1, variants=2, reasks=0, masking="off", relevance=0.6, sense=True
    )
    generator = RealGenerator(create_generator(RewriterConfig(), DEFAULT_MODEL))
    setup = replace(
        setup,
        split=replace(setup.split, train=setup.split.train[:6]),
        sampling=RewriterConfig(max_tokens=60),
        scorer=RealScorer(create_scorer(ScorerConfig(), DEFAULT_MODEL)),
        rewriter=generator,
        sense=SenseGate.of(setup.task, setup.split.train, "short", ALL),
    )
    await search_task(setup)
    written = {request.operator: request for record in kept for request in record.requests}
    assert set(written) == set(ALL)
    answered: dict[str, list[str]] = {name: [] for name in ALL}
    for record in kept[1:]:
        for one in texts_of(record):
            answered[one.operator].append(one.text)
    assert all(any(text.strip() for text in texts) for texts in answered.values())
