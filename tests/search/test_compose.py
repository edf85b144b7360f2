"""The operator "compose": every instruction that it makes is one that a person could have written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.search.compose import Compose
from pmpo_ray.search.gate import refusal_reason
from pmpo_ray.search.loop import search_task
from pmpo_ray.search.masking import rule_segments
from pmpo_ray.search.operators import ProposalContext
from pmpo_ray.search.sense import SenseGate
from pmpo_ray.search.sentences import Place, Sentences
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.tasks import load_task
from pmpo_ray.tasks.bbh import DESCRIPTIONS
from pmpo_ray.types import Candidate, RoundRecord, ScoredCandidate, Task
from tests.search.test_loop import LocalGenerator, setup_of

TASKS = ("tickets", "sst2", "subj", "trec", "gsm8k", "aqua", *(f"bbh/{name}" for name in DESCRIPTIONS))
TICKETS = load_task(TaskConfig(name="tickets"), None, 0)


def context(
    text: str, count: int = 8, seed: int = 0, number: int = 2, others: Sequence[ScoredCandidate] = ()
) -> ProposalContext:
    parent = ScoredCandidate(Candidate("p", text, None, "p", "seed", 0), (), (), 1.0)
    history = (RoundRecord("t", 0, (parent, *others), ("p",)),)
    return ProposalContext(
        "", parent, (), (), (), LocalGenerator(), 4000, number, seed, count, (parent,), history
    )


async def made(task: Task, text: str | None = None, *, count: int = 8, **changes: int) -> list[str]:
    found = await Compose.of(task).propose(context(text or task.instruction, count, **changes))
    assert all(one.shots is None for one in found)
    return [one.text for one in found]


def sentences(text: str) -> list[str]:
    return [part.text for part in rule_segments(text, 100)]


@pytest.mark.parametrize("name", TASKS)
async def test_proposals_are_whole_sentences_that_pass_the_gates(name: str, data_dir: Path) -> None:
    task = load_task(TaskConfig(name=name), str(data_dir), 0)
    rows = task.examples[:50]
    sense = SenseGate.of(task, rows, "short")
    library = {text for known in Sentences.of(task).by_place.values() for text in known}
    assert all(text[0].isupper() and text.endswith(".") and text == text.strip() for text in library)
    proposals = {text for seed in range(20) for text in await made(task, seed=seed)}
    passing = set()
    for text in proposals:
        reason = refusal_reason(
            text, known=(), examples=rows, max_chars=4000, allowed=task.instruction
        ) or sense.reason(text, task.instruction)
        # A hint alone, or the mere list of the answers, may come out; the gate refuses it.
        assert reason in (None, "tells nobody what to do", "is not about the task"), text
        passing |= {text} if reason is None else set()
        known = {*library, *sentences(task.instruction), *sentences(task.description)}
        assert not [part for part in sentences(text) if part not in known], text
        assert max(Counter(sentences(text)).values()) == 1
    assert len(passing) >= 0.8 * len(proposals)


@given(st.integers(1, 12), st.integers(0, 10_000))
async def test_proposals_are_new_and_distinct_and_follow_the_seed(count: int, seed: int) -> None:
    found = await made(TICKETS, count=count, seed=seed)
    assert len(set(found)) == len(found) <= count
    assert TICKETS.instruction not in found
    assert found == await made(TICKETS, count=count, seed=seed)


async def test_every_move_is_made() -> None:
    before = sentences(TICKETS.instruction)
    found = [sentences(text) for seed in range(10) for text in await made(TICKETS, seed=seed)]
    kept = Counter((len([part for part in text if part in before]), len(text)) for text in found)
    # One added, one put in the place of another, and one left out of four.
    assert all(kept[key] for key in ((4, 5), (3, 4), (3, 3)))
    assert any(not set(text) & set(before) for text in found)


def other(name: str, text: str, loss: float, left: int = 0) -> ScoredCandidate:
    return ScoredCandidate(Candidate(name, text, "p", "p", "rewrite", 1), (), (), loss, left)


async def test_sentences_of_the_best_other_instructions_are_taken_over() -> None:
    others = (
        other("a", "Weigh what the customer asks for. Name the kind of ticket.", 1.1),
        other("b", "Choose billing, bug report, account access, shipping, feature request or praise.", 1.2),
        other("c", "Mind the gap.", 1.3),
        other("d", "Pick a card.", 1.4),
        other("e", "Left after a quarter.", 0.1, left=4),
        other("f", "Could not be scored.", math.inf),
    )
    found = [
        one.text
        for seed in range(10)
        for one in await Compose.of(TICKETS).propose(context(TICKETS.instruction, 20, seed, others=others))
    ]
    taken = {part for text in found for part in sentences(text)} & {
        part for one in others for part in sentences(one.candidate.text)
    }
    assert taken == {part for one in others[:3] for part in sentences(one.candidate.text)}
    # Answers are listed once: the other list stands in the place of the parent's own.
    lists = [text for text in found if others[1].candidate.text in text]
    assert lists
    assert not [text for text in lists if "Choose one of these labels" in text]


async def test_new_sentences_stand_in_the_order_of_what_they_say() -> None:
    library = Sentences.of(TICKETS)
    for seed in range(10):
        for text in await made(TICKETS, seed=seed):
            new = [part for part in sentences(text) if part not in sentences(TICKETS.instruction)]
            places = [library.place(part) for part in new]
            assert places == sorted(places)


async def test_the_description_is_proposed_in_the_first_round() -> None:
    assert (await made(TICKETS, number=1))[0] == TICKETS.description
    assert TICKETS.description not in await made(TICKETS, number=2)


async def test_lines_of_the_parent_stay_lines() -> None:
    text = "Sort the message:\n- Read it closely.\n- Choose its label."
    found = [one for seed in range(10) for one in await made(TICKETS, text, seed=seed)]
    longer = [one for one in found if one.count("\n- ") == 2]
    assert longer
    assert all(one.endswith(("\n- Choose its label.", ".")) for one in longer)


async def test_instructions_in_other_languages_are_left_alone() -> None:
    assert await made(TICKETS, "Lies die Nachricht und ordne sie ein.") == []


@pytest.mark.parametrize(
    ("description", "labels", "wanted"),
    [
        (
            "Each input is a question about facts. The output is the kind of thing it asks for: a or b.",
            ("a", "b"),
            {
                Place.READ: "Read the question about facts.",
                Place.CHOICES: "Answer with the kind of thing it asks for: a or b.",
                Place.FORM: "Answer with one word.",
            },
        ),
        (
            "Every input is one message, in English. The output tells what it is about.",
            ("bug report", "praise"),
            {
                Place.READ: "The input is a message.",
                Place.CHOICES: "Classify the input as bug report or praise.",
                # It does not name the labels.
                Place.FORM: "Tell what it is about.",
            },
        ),
        (
            "Sentiment of reviews",
            ("good",),
            {Place.READ: "Read the input.", Place.FORM: "Answer with one word."},
        ),
    ],
)
def test_sentences_are_filled_in_from_the_description_and_the_labels(
    description: str, labels: tuple[str, ...], wanted: dict[Place, str]
) -> None:
    task = replace(TICKETS, description=description, labels=labels, meanings=())
    library = Sentences.of(task)
    for place, sentence in wanted.items():
        assert sentence in library.by_place[place]
        assert library.place(sentence) is place


def test_a_long_list_of_labels_is_in_no_sentence() -> None:
    library = Sentences.of(
        replace(TICKETS, labels=tuple(f"intent number {n}" for n in range(77)), meanings=())
    )
    assert not [text for known in library.by_place.values() for text in known if "intent" in text]


def test_answers_are_listed_with_their_meanings_where_these_are_known() -> None:
    choices = Sentences.of(TICKETS).by_place[Place.CHOICES]
    [meant] = [
        sentence for sentence in choices if "(a wish for something that does not exist yet)" in sentence
    ]
    assert meant.startswith("Choose one of these answers: billing (charges, refunds")
    untold = Sentences.of(replace(TICKETS, meanings=())).by_place[Place.CHOICES]
    assert set(choices) - set(untold) == {meant}
    long = replace(TICKETS, meanings=("many words " * 20,) * 6)
    assert Sentences.of(long).by_place[Place.CHOICES] == untold


def composing(kept: list[RoundRecord] | None = None) -> SearchSetup:
    setup = setup_of(kept=kept, operators=["compose"], masking="off", rounds=3)
    return replace(setup, proposers={"compose": Compose.of(setup.task)})


@pytest.mark.parametrize("finished", [1, 2, 3])
async def test_a_search_improves_without_a_word_of_the_rewriter_and_continues(finished: int) -> None:
    kept: list[RoundRecord] = []
    whole = await search_task(composing(kept))
    assert whole.best.candidate.operator == "compose"
    assert whole.best.loss < whole.start.loss
    assert sum(record.tokens_generated + record.tokens_prompted for record in whole.records) == 0
    again = await search_task(composing(), kept[:finished])
    assert [replace(r, seconds=0.0) for r in again.records] == [
        replace(r, seconds=0.0) for r in whole.records
    ]
