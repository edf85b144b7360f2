"""The gate's last question: rewrites that the task's description makes hardly likelier are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pmpo_ray.errors import EngineError
from pmpo_ray.search.budget import Allowance
from pmpo_ray.search.finished_rounds import FinishedRounds
from pmpo_ray.search.gate import NOT_RELEVANT
from pmpo_ray.search.loop import search_task
from pmpo_ray.search.relevance import judging_cost, relevances, relevant
from pmpo_ray.search.round import Round
from pmpo_ray.search.sense import SenseGate
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.types import (
    AnswerScore,
    Candidate,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    Generation,
    RoundRecord,
    ScoredCandidate,
    ScoreRequest,
)
from tests.search.test_loop import LocalGenerator, LocalScorer, setup_of

Gain = Callable[[str], float]


class Reader:
    """A scorer to which a text is likelier behind a description by `gain` nats a token; a token is a word."""

    def __init__(self, gain: Gain) -> None:
        self._gain = gain
        self._others = LocalScorer()
        self.read: list[str] = []

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        if not request.instruction.startswith("Write the instruction for this task"):
            return await self._others.score(request, rounds_left=rounds_left)
        self.read += [example.target for example in request.examples]
        found = []
        for example in request.examples:
            words = len(example.target.split())
            nats = self._gain(example.target) if example.input != "N/A" else 0.0
            found.append(ExampleScore(AnswerScore(words * (nats - 3), words), (), 10))
        return tuple(found)


async def test_the_relevance_is_what_the_description_adds_to_a_token() -> None:
    reader = Reader(lambda text: len(text) / 10)
    values, tokens = await relevances(reader, "Sorting.", ["Sort it.", "Sort it by its topic."])
    assert values == pytest.approx([0.8, 2.1])
    # Each text is read twice, behind 10 tokens.
    assert tokens == 2 * (10 + 2) + 2 * (10 + 5)


def round_of(gain: Gain, **settings: object) -> tuple[Round, Reader]:
    reader = Reader(gain)
    setup = replace(setup_of(**settings), scorer=reader)
    parent = ScoredCandidate(Candidate("p", "Read it. Sort it.", None, "p", "seed", 0), (), (), 1.0)
    return Round(setup, FinishedRounds(), 1, 0.0, (parent,)), reader


def candidates(*texts: str) -> list[Candidate]:
    return [Candidate(f"c{n}", text, "p", "p", "rewrite", 1) for n, text in enumerate(texts)]


async def test_texts_below_the_bound_are_refused_and_counted() -> None:
    current, reader = round_of(lambda text: 0.59 if "moon" in text else 0.61)
    allowance = Allowance(1000)
    groups = [candidates("Sort by topic.", "Go to the moon."), candidates("Read it.")]
    kept = await relevant(groups, current, allowance)
    assert [[one.text for one in group] for group in kept] == [["Sort by topic."], ["Read it."]]
    assert [(one.text, one.reason, one.status) for one in current.refusals] == [
        ("Go to the moon.", NOT_RELEVANT, "refused")
    ]
    # A sentence of the parent is not judged.
    assert "Read it." not in reader.read
    assert current.tokens_scored == 1000 - allowance.left == 2 * (10 + 3) + 2 * (10 + 4)
    assert current.tokens_scored <= 2 * judging_cost(current)


@pytest.mark.parametrize("settings", [{"relevance": None}, {"sense": False}], ids=str)
async def test_nothing_is_judged_without_a_bound(settings: dict[str, object]) -> None:
    current, reader = round_of(lambda _: 0.0, **settings)
    groups = [candidates("Go to the moon.")]
    assert await relevant(groups, current, Allowance()) == groups
    assert not reader.read
    assert judging_cost(current) == 0


async def test_hints_for_answers_that_are_reasoned_out_are_not_judged() -> None:
    current, reader = round_of(lambda _: 0.0)
    current.setup = replace(current.setup, task=replace(current.setup.task, labels=()))
    groups = [candidates("Take a deep breath.")]
    assert await relevant(groups, current, Allowance()) == groups
    assert not reader.read


async def test_texts_that_cannot_be_read_fail_with_the_reason() -> None:
    class Broken(Reader):
        async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
            raise EngineError("too long for the context")

    current, _ = round_of(lambda _: 0.0)
    current.setup = replace(current.setup, scorer=Broken(lambda _: 0.0))
    assert await relevant([candidates("Go to the moon.")], current, Allowance()) == [[]]
    assert [(one.reason, one.status) for one in current.refusals] == [("too long for the context", "failed")]


class Moonstruck(LocalGenerator):
    """Every other rewrite is about the moon."""

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        texts = [
            f"Choose the label of the message and look at the moon {request.seed % 1000 + n} times."
            if (request.seed + n) % 2
            else f"Choose the label that fits the message, and check it {request.seed % 1000 + n} times."
            for n in range(request.n)
        ]
        samples = tuple(Generation(f"<prompt>{text}</prompt>", 12, True) for text in texts)
        return GenerateResult(samples, 50, 0.0)


def moonstruck(kept: list[RoundRecord] | None = None) -> tuple[SearchSetup, Reader]:
    setup = setup_of(kept=kept, masking="off", rounds=3, reasks=1)
    reader = Reader(lambda text: 0.1 if "moon" in text else 1.0)
    gate = SenseGate.of(setup.task, setup.split.train, setup.style)
    return replace(setup, scorer=reader, rewriter=Moonstruck(), sense=gate), reader


@pytest.mark.parametrize("finished", [1, 2])
async def test_a_search_asks_again_never_reads_a_text_twice_and_continues(finished: int) -> None:
    kept: list[RoundRecord] = []
    setup, reader = moonstruck(kept)
    whole = await search_task(setup)
    texts = [one.candidate.text for record in whole.records for one in record.candidates]
    refused = [one for record in whole.records for one in record.refusals if one.reason == NOT_RELEVANT]
    assert refused
    assert all("moon" in one.text for one in refused)
    assert not [text for text in texts if "moon" in text]
    assert len(reader.read) == 2 * len(set(reader.read))
    # Three hard cases with four variants each, and in place of every refused text another one is asked for.
    asked = [one for one in whole.records[1].refusals if one.operator == "rewrite"]
    assert len([one for one in whole.records[1].candidates if one.candidate.round == 1]) + len(asked) > 12
    again = await search_task(moonstruck()[0], kept[:finished])
    assert [replace(r, seconds=0.0) for r in again.records] == [
        replace(r, seconds=0.0) for r in whole.records
    ]
