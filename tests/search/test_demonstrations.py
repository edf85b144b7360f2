"""Demonstrations as part of a candidate: what is proposed and scored, and what a continued search keeps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmpo_ray.errors import ConfigError
from pmpo_ray.search.demonstrations import Demonstrate
from pmpo_ray.search.leave_one_out import LeaveOneOut
from pmpo_ray.search.loop import search_task
from pmpo_ray.search.operators import Proposal, ProposalContext, Proposals
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.types import (
    AnswerScore,
    Candidate,
    Example,
    ExampleScore,
    RoundRecord,
    ScoredCandidate,
    ScoreRequest,
)
from tests.search.test_loop import LocalGenerator, setup_of

EXAMPLES = tuple(Example(f"{n}", f"input {n}", f"label {n * n % 5}") for n in range(20))


def context(
    count: int, shots: tuple[str, ...] = (), seed: int = 0, examples: tuple[Example, ...] = EXAMPLES
) -> ProposalContext:
    parent = ScoredCandidate(Candidate("p", "Sort it.", None, "p", "seed", 0, shots), (), (), 1.0)
    return ProposalContext(
        "Sorting.", parent, examples, (), (), LocalGenerator(), 1000, 1, seed, count, (parent,), ()
    )


async def proposed(most: int, count: int = 8, **changes: object) -> list[tuple[str, ...]]:
    proposals = await Demonstrate(most).propose(context(count, **changes))  # type: ignore[arg-type]
    assert {one.text for one in proposals} <= {"Sort it."}
    return [one.shots or () for one in proposals]


@given(st.integers(1, 25), st.integers(0, 10_000))
@settings(deadline=None)
async def test_draws_are_balanced_over_the_answers(most: int, seed: int) -> None:
    answers = {example.id: example.target for example in EXAMPLES}
    rows = Counter(answers.values())
    for shots in await proposed(most, seed=seed):
        shown = Counter(answers[name] for name in shots)
        assert len(set(shots)) == len(shots) == min(most, len(EXAMPLES) - 1)
        # No answer is shown less often than another one, unless it has no more rows.
        assert all(shown[one] >= min(rows[one], max(shown.values()) - 1) for one in rows)


@given(st.integers(1, 6), st.integers(0, 10_000))
@settings(deadline=None)
async def test_moves_change_the_parents_demonstrations(most: int, seed: int) -> None:
    own = tuple(example.id for example in EXAMPLES[:most])
    found = await proposed(most, shots=own, seed=seed)
    assert own not in found
    assert len(set(found)) == len(found)
    assert all(0 < len(set(shots)) == len(shots) <= most for shots in found)


async def test_moves_are_those_of_a_local_search() -> None:
    own = ("0", "1", "2")
    found = [set(shots) for seed in range(20) for shots in await proposed(4, shots=own, seed=seed)]
    kept = Counter((len(shots & set(own)), len(shots)) for shots in found)
    # Reordered, one added, one left out, one swapped, and drawn anew.
    assert all(kept[key] for key in ((3, 3), (3, 4), (2, 2), (2, 3), (0, 4)))


async def test_proposals_depend_on_the_seed_alone() -> None:
    assert await proposed(4, seed=3) == await proposed(4, seed=3)
    assert await proposed(4, seed=3) != await proposed(4, seed=4)


async def test_no_input_is_shown_twice() -> None:
    twins = tuple(Example(f"{n}", f"input {n % 3}", f"label {n % 2}") for n in range(6))
    for shots in await proposed(6, examples=twins):
        assert len({int(name) % 3 for name in shots}) == len(shots) == 3


class Counting:
    """A scorer to which every demonstration is worth a tenth of a nat, and some inputs are hard."""

    def __init__(self) -> None:
        self.requests: list[ScoreRequest] = []

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        self.requests.append(request)
        shown = {shot.input for shot in request.shots}
        assert not shown & {example.input for example in request.examples}
        gain = 0.1 * len(shown)
        return tuple(
            ExampleScore(
                AnswerScore(gain - len(example.input) / 50, 2),
                tuple(AnswerScore(-1.0, 2) for _ in example.negatives),
                20 + 10 * len(shown),
            )
            for example in request.examples
        )


def demonstrated(
    most: int = 3, kept: list[RoundRecord] | None = None, **changes: object
) -> tuple[SearchSetup, Counting]:
    setup, scorer = setup_of(kept=kept, **{"rounds": 3, "masking": "rules", **changes}), Counting()
    return replace(
        setup,
        scorer=LeaveOneOut(scorer, setup.split.train),
        proposers={"demonstrate": Demonstrate(most)},
    ), scorer


async def test_a_search_finds_demonstrations_and_scores_no_row_behind_itself() -> None:
    setup, scorer = demonstrated()
    outcome = await search_task(setup)
    assert len(outcome.best.candidate.shots) == 3
    assert outcome.start.candidate.shots == ()
    assert outcome.best.loss < outcome.start.loss
    assert len(outcome.best.losses) == len(setup.split.train)
    assert max(len(request.shots) for request in scorer.requests) == 3
    found = [one.candidate for record in outcome.records for one in record.candidates]
    # Rewrites and masked texts of a parent keep its demonstrations.
    parents = {one.id: one for one in found}
    later = [one for one in found if one.operator in ("rewrite", "mask_drop") and one.round > 1]
    assert later
    assert all(one.shots == parents[one.parent or ""].shots for one in later)


async def test_a_text_with_other_demonstrations_is_another_candidate() -> None:
    outcome = await search_task(demonstrated()[0])
    found = {one.candidate.id: one.candidate for record in outcome.records for one in record.candidates}
    keys = [(one.text, one.shots) for one in found.values()]
    assert len(set(keys)) == len(keys)
    assert len({text for text, _ in keys}) < len(keys)


def untimed(records: tuple[RoundRecord, ...]) -> list[RoundRecord]:
    return [replace(record, seconds=0.0) for record in records]


@pytest.mark.parametrize("finished", [1, 2, 3])
async def test_a_continued_search_equals_an_undisturbed_one(finished: int) -> None:
    kept: list[RoundRecord] = []
    whole = await search_task(demonstrated(kept=kept)[0])
    again = await search_task(demonstrated()[0], kept[:finished])
    assert [replace(r, seconds=0.0) for r in again.records] == [
        replace(r, seconds=0.0) for r in whole.records
    ]


def proposing(setup: SearchSetup, proposals: Proposals) -> SearchSetup:
    class Fixed:
        async def propose(self, _: ProposalContext) -> Proposals:
            return proposals

    return replace(setup, proposers={"fixed": Fixed()})


async def test_an_operator_of_a_user_may_name_demonstrations() -> None:
    setup, _ = demonstrated(rounds=1)
    first, second, *_ = (example.id for example in setup.split.train)
    proposals = ["Sort the messages by their topic.", Proposal(setup.task.instruction, (second, first))]
    outcome = await search_task(proposing(setup, proposals))
    made = {one.candidate.shots for one in outcome.records[1].candidates if one.candidate.operator == "fixed"}
    assert made == {(), (second, first)}


@pytest.mark.parametrize("shots", [("nobody",), "twice"])
async def test_demonstrations_that_are_no_training_examples_are_refused(shots: tuple[str, ...] | str) -> None:
    setup, _ = demonstrated(rounds=1)
    name = setup.split.train[0].id
    names = (name, name) if shots == "twice" else tuple(shots)
    with pytest.raises(ConfigError, match=r"fixed proposed the demonstrations .*; name ids of training"):
        await search_task(proposing(setup, [Proposal("Sort.", names)]))
