"""Readability: the surprisal of a text counts beside its loss, and is read once per text."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from pmpo_ray.config.engines import DEFAULT_MODEL, ScorerConfig
from pmpo_ray.config.tasks import SplitConfig
from pmpo_ray.engines.factory import create_scorer
from pmpo_ray.errors import DataError, EngineError
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.protocols import Scorer
from pmpo_ray.runs.finish_task import pick
from pmpo_ray.search.demonstrations import Demonstrate
from pmpo_ray.search.leave_one_out import LeaveOneOut
from pmpo_ray.search.loop import SearchOutcome, search_task
from pmpo_ray.search.objectives import make_objective
from pmpo_ray.search.operators import Proposer
from pmpo_ray.search.readings import readings, surprisal
from pmpo_ray.search.sense import SenseGate
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.tasks import split_task
from pmpo_ray.types import (
    AnswerScore,
    Example,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    Generation,
    RoundRecord,
    ScoredCandidate,
    ScoreRequest,
)
from tests.search.test_loop import STARTS, LocalScorer, setup_of

START, CLEAR, ODD = "Sort it.", "Sort the message by its topic.", "Topic sort moon it by."
LOSSES = {START: 2.0, CLEAR: 1.6, ODD: 1.5}
NATS = {START: 2.0, CLEAR: 1.0, ODD: 5.0}


def is_reading(request: ScoreRequest) -> bool:
    return request.instruction.startswith("Write the instruction for this task")


@dataclass
class Table:
    """A scorer that reads the tables; a token is a word. Texts that it cannot read are in `unreadable`."""

    nats: Mapping[str, float] = field(default_factory=lambda: NATS)
    unreadable: tuple[str, ...] = ()
    read: list[tuple[str, str]] = field(default_factory=list)
    scored: list[str] = field(default_factory=list)

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        if not is_reading(request):
            self.scored.append(request.instruction)
            loss = LOSSES[request.instruction]
            return tuple(ExampleScore(AnswerScore(-loss, 1), (), 10) for _ in request.examples)
        found = []
        for example in request.examples:
            if example.target in self.unreadable:
                raise EngineError("too long for the context")
            self.read.append((example.input, example.target))
            words = len(example.target.split())
            found.append(ExampleScore(AnswerScore(-words * self.nats[example.target], words), (), 20))
        return tuple(found)


class Script:
    """A rewriter that writes the clear text and the odd one."""

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        samples = tuple(Generation(f"<prompt>{text}</prompt>", 5, True) for text in (CLEAR, ODD))
        return GenerateResult(samples[: request.n], 10, 0.0)


def tabled(table: Table, **settings: object) -> SearchSetup:
    """A round that rewrites the start for one of three examples, without a gate for sense."""
    changes = {"preset": "paper", "masking": "off", "rounds": 1, "hard_examples": 1, "variants": 2}
    setup = setup_of(**{**changes, **settings})
    return replace(
        setup,
        task=replace(setup.task, instruction=START, description="Sorting."),
        split=replace(setup.split, train=tuple(Example(f"e{n}", f"input {n}", "yes") for n in range(3))),
        objective=make_objective("cross_entropy", beta=1.0, per_token=False),
        scorer=table,
        rewriter=Script(),
    )


@pytest.mark.parametrize(
    ("weight", "best", "value"),
    [
        (None, ODD, 1.5),
        # 1.5 + 0.02 x 5 = 1.60 is less than 1.6 + 0.02 x 1 = 1.62.
        (0.02, ODD, 1.6),
        # 1.5 + 0.03 x 5 = 1.65 is more than 1.6 + 0.03 x 1 = 1.63.
        (0.03, CLEAR, 1.63),
        (1.0, CLEAR, 2.6),
    ],
)
async def test_the_readable_text_wins_where_its_surprisal_outweighs_its_loss(
    weight: float | None, best: str, value: float
) -> None:
    table = Table()
    outcome = await search_task(tabled(table, readability=weight))
    assert outcome.best.candidate.text == best
    assert outcome.best.value == pytest.approx(value)
    # What is shown as the loss stays the loss.
    assert outcome.best.loss == pytest.approx(LOSSES[best])
    assert {one.candidate.text: one.surprisal for one in outcome.records[1].candidates} == (
        {START: 2.0, CLEAR: 1.0, ODD: 5.0} if weight else dict.fromkeys(LOSSES)
    )
    assert sorted(table.read) == (sorted(("Sorting.", text) for text in LOSSES) if weight else [])
    # Three examples of 11 tokens for each text, and 20 tokens and its words for each reading.
    read = 20 * 3 + 2 + 6 + 5 if weight else 0
    assert sum(record.tokens_scored for record in outcome.records) == 3 * 3 * 11 + read


async def test_a_lower_loss_does_not_replace_a_parent_that_reads_better() -> None:
    nats = {START: 1.0, CLEAR: 1.5, ODD: 5.0}
    outcome = await search_task(tabled(Table(nats), readability=1.0))
    # 2.0 + 1.0 is less than 1.6 + 1.5.
    assert outcome.best.candidate.text == START
    equal = await search_task(tabled(Table({**nats, CLEAR: 1.4}), readability=1.0))
    # Only a strictly lower value replaces a parent.
    assert equal.best.candidate.text == START


async def test_survivors_are_in_the_order_of_their_values() -> None:
    outcome = await search_task(tabled(Table(), readability=0.1, population=3, max_siblings=3))
    # 1.6 + 0.1, 1.5 + 0.5 and 2.0 + 0.2.
    assert [one.candidate.text for one in outcome.records[1].scored_survivors] == [CLEAR, ODD, START]


async def test_a_task_without_a_description_is_read_without_content() -> None:
    table = Table()
    setup = tabled(table, readability=0.1)
    await search_task(replace(setup, task=replace(setup.task, description=" ")))
    assert {context for context, _ in table.read} == {"N/A"}


async def test_a_text_that_cannot_be_read_fails_alone() -> None:
    table = Table(unreadable=(ODD,))
    outcome = await search_task(tabled(table, readability=0.1))
    [refusal] = outcome.records[1].refusals
    assert (refusal.text, refusal.reason, refusal.status) == (ODD, "too long for the context", "failed")
    assert outcome.best.candidate.text == CLEAR
    assert ODD not in table.scored
    with pytest.raises(EngineError, match="too long"):
        await search_task(tabled(Table(unreadable=(START,)), readability=0.1))


async def test_a_text_without_a_finite_reading_never_wins() -> None:
    outcome = await search_task(tabled(Table({**NATS, ODD: math.nan, CLEAR: math.inf}), readability=0.01))
    assert outcome.best.candidate.text == START
    assert [one.surprisal for one in outcome.records[1].candidates[1:]] == [math.inf, math.inf]


async def test_a_budget_pays_for_the_readings() -> None:
    # The start takes 33 tokens to score and at most 58 to read.
    with pytest.raises(DataError, match="does not suffice to score the start instruction"):
        await search_task(tabled(Table(), readability=0.1, max_tokens=50))
    outcome = await search_task(tabled(Table(), readability=0.1, max_tokens=160))
    assert outcome.stopped == "token budget"
    assert sum(record.tokens for record in outcome.records) <= 160


@dataclass
class Noting(LocalScorer):
    """Notes which texts are read behind which context; replies come in any order."""

    read: Counter[tuple[str, str]] = field(default_factory=Counter)
    backwards: bool = False

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        if is_reading(request):
            self.read.update((example.input, example.target) for example in request.examples)
        place = len(request.examples[0].target + request.instruction) % 7
        await asyncio.sleep((place if self.backwards else 7 - place) / 5000)
        return self.engine.score(request).scores


def whole_search(
    scorer: Noting, kept: list[RoundRecord] | None = None, *, judged: bool = True
) -> SearchSetup:
    """A search with everything that scores: starts, masking, racing, demonstrations, relevance."""
    setup = setup_of(
        kept=kept,
        starts=STARTS,
        population=2,
        masking="rules",
        racing=0.2,
        bandit=True,
        readability=0.4,
        relevance=0.5,
        rounds=3,
    )
    split = split_task(setup.task, SplitConfig(train_max=40, validation=0), 0)
    proposers: dict[str, Proposer] = {"demonstrate": Demonstrate(2)}
    gate = SenseGate.of(setup.task, split.train, setup.style)
    task = setup.task if judged else replace(setup.task, labels=())
    return replace(
        setup,
        task=task,
        split=split,
        proposers=proposers,
        sense=gate,
        scorer=LeaveOneOut(scorer, split.train),
    )


def untimed(outcome: SearchOutcome) -> str:
    # repr lets a nan equal a nan.
    return repr([replace(record, seconds=0.0) for record in outcome.records])


@pytest.mark.parametrize("finished", [1, 2, 3])
async def test_a_continued_search_equals_an_undisturbed_one(finished: int) -> None:
    kept: list[RoundRecord] = []
    whole = await search_task(whole_search(Noting(), kept))
    again = await search_task(whole_search(Noting()), kept[:finished])
    assert untimed(again) == untimed(whole)
    assert any(one.left for record in whole.records for one in record.candidates)


async def test_nothing_depends_on_who_answers_first() -> None:
    one, other = [await search_task(whole_search(Noting(backwards=backwards))) for backwards in (False, True)]
    assert untimed(one) == untimed(other)


@pytest.mark.parametrize("judged", [True, False])
async def test_a_text_is_read_once_whatever_its_demonstrations(judged: bool) -> None:
    scorer = Noting()
    setup = whole_search(scorer, judged=judged)
    outcome = await search_task(setup)
    scored = [one for record in outcome.records for one in record.candidates]
    texts = {one.candidate.text for one in scored}
    assert len({(one.candidate.text, one.candidate.shots) for one in scored}) > len(texts)
    behind = {text for context, text in scorer.read if context == setup.task.description}
    assert texts <= behind
    for text in texts:
        # With other demonstrations a text is judged again, and that takes both readings.
        judgements = scorer.read["N/A", text]
        assert scorer.read[setup.task.description, text] - judgements in ((0, 1) if judgements else (1,))
    assert {context for context, _ in scorer.read} == {setup.task.description, *(["N/A"] if judged else [])}
    for one in scored:
        assert one.surprisal is not None
        assert one.penalty == 0.4 * one.surprisal


async def test_without_the_setting_nothing_is_read() -> None:
    scorer = Noting()
    setup = whole_search(scorer, judged=False)
    settings = setup.settings.model_copy(update={"readability": None})
    outcome = await search_task(replace(setup, settings=settings))
    assert not scorer.read
    candidates = [one for record in outcome.records for one in record.candidates]
    assert {(one.surprisal, one.penalty) for one in candidates} == {(None, 0.0)}
    assert all(one.value == one.loss for one in candidates)


async def test_the_final_pick_goes_by_the_value() -> None:
    setup = setup_of(rounds=4, readability=0.4)
    split = split_task(setup.task, SplitConfig(train_max=12, validation=6), 0)
    prepared = PreparedTask(setup.task, split, setup.objective, setup.settings, {})
    outcome = await search_task(replace(setup, split=split))
    picked, _ = await pick(prepared, outcome, LocalScorer())

    def worse(one: ScoredCandidate) -> ScoredCandidate:
        return replace(one, penalty=one.penalty + 10) if one.candidate.id == picked.candidate.id else one

    records = tuple(
        replace(record, candidates=tuple(map(worse, record.candidates))) for record in outcome.records
    )
    other, _ = await pick(prepared, SearchOutcome(records, "rounds"), LocalScorer())
    assert other.candidate.id != picked.candidate.id


@pytest.fixture(scope="module")
def smollm() -> Scorer:
    from pmpo_ray.engines.weights.resolve import resolve_model

    path = resolve_model(DEFAULT_MODEL, progress=False).path
    return create_scorer(ScorerConfig(dtype="float32"), str(path))


@dataclass
class Client:
    engine: Scorer

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        return self.engine.score(request).scores


@pytest.mark.slow
async def test_nonsense_surprises_a_real_model_more_than_an_instruction(smollm: Scorer) -> None:
    description = setup_of().task.description
    instructions = [
        "Read the customer's message. Decide which kind of ticket it is, and answer with the label.",
        "Choose the label that fits the message best.",
    ]
    nonsense = [
        "Label the purple of of ticket sing, because answer answer moon the which.",
        "Ticket best fits label the choose that message.",
    ]
    found, _ = await readings(Client(smollm), [description], [*instructions, *nonsense])
    nats = [surprisal(reading) for [reading] in found]
    assert max(nats[:2]) + 1 < min(nats[2:])
