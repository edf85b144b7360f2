"""How proposals are shared out among operators."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.search.bandit import Yield, counts, shares, yields
from pmpo_ray.search.demonstrations import Demonstrate
from pmpo_ray.search.loop import search_task
from pmpo_ray.search.operators import ProposalContext
from pmpo_ray.types import (
    AnswerScore,
    Candidate,
    ExampleScore,
    Refusal,
    RoundRecord,
    ScoredCandidate,
)
from tests.search.test_loop import setup_of

OPERATORS = ("rewrite", "compose", "demonstrate")


def scored(name: str, operator: str, loss: float, *, tokens: int = 100, left: int = 0) -> ScoredCandidate:
    """A candidate of round 1 on ten rows."""
    rows = ExampleScore(AnswerScore(-1.0, 1), (), tokens - 1)
    candidate = Candidate(name, name, "p", "p", operator, 0 if operator == "seed" else 1)
    return ScoredCandidate(candidate, () if left else (rows,) * 10, (loss,) * 10, loss, left)


def refused(operator: str) -> Refusal:
    return Refusal("x", "x", "p", "p", operator, "duplicate")


def test_a_round_yields_the_best_gain_of_each_operator_for_the_tokens_of_all_its_texts() -> None:
    record = RoundRecord(
        task="t",
        round=1,
        candidates=(
            scored("p", "seed", 1.0),
            scored("a", "compose", 0.9),
            scored("b", "compose", 0.7),
            scored("c", "compose", 0.1, left=4),
            scored("d", "rewrite", 1.2),
            scored("e", "demonstrate", math.inf, tokens=300),
        ),
        survivors=("b",),
        refusals=(refused("rewrite"), refused("rewrite"), refused("own")),
        tokens_prompted=1000,
        tokens_generated=600,
    )
    found = yields(record, 1.0)
    # Of the one that left nothing is known but the rows it was scored on, at the round's tokens a row.
    assert found["compose"] == Yield(pytest.approx(0.3), pytest.approx(2 * 1000 + 4 * 140))
    # The rewriter wrote three texts for rewriting and one for an operator of one's own.
    assert found["rewrite"] == Yield(0.0, 1000 + 1200)
    assert found["own"] == Yield(0.0, 400)
    assert found["demonstrate"] == Yield(0.0, 3000)
    assert set(found) == {"compose", "rewrite", "own", "demonstrate"}


def test_nothing_is_gained_from_a_loss_that_is_not_finite() -> None:
    record = RoundRecord("t", 1, (scored("a", "compose", 0.9), scored("b", "rewrite", math.inf)), ("a",))
    assert [one.gain for one in yields(record, math.inf).values()] == [0.0, 0.0]


def test_a_gain_is_one_of_the_value_that_candidates_are_ranked_by() -> None:
    odd = replace(scored("a", "rewrite", 0.5), surprisal=4.0, penalty=0.8)
    plain = replace(scored("b", "compose", 0.7), surprisal=1.0, penalty=0.2)
    found = yields(RoundRecord("t", 1, (odd, plain), ("b",)), 1.2)
    assert {name: one.gain for name, one in found.items()} == pytest.approx({"rewrite": 0.0, "compose": 0.3})


def test_operators_share_evenly_until_one_has_lowered_the_loss() -> None:
    even = dict.fromkeys(OPERATORS, 1 / 3)
    assert shares([], OPERATORS) == even
    assert shares([{name: Yield(0.0, 500.0) for name in OPERATORS}], OPERATORS) == even


def test_gain_per_token_earns_a_larger_share_and_fades() -> None:
    cheap = {
        "rewrite": Yield(0.1, 9000.0),
        "compose": Yield(0.1, 1000.0),
        "demonstrate": Yield(0.0, 1000.0),
    }
    found = shares([cheap], OPERATORS)
    assert found["compose"] > found["rewrite"] > 1 / 12
    assert found["compose"] > found["demonstrate"] > 1 / 12
    later = {
        "rewrite": Yield(0.0, 9000.0),
        "compose": Yield(0.0, 1000.0),
        "demonstrate": Yield(0.1, 1000.0),
    }
    after = shares([cheap, later], OPERATORS)
    assert after["demonstrate"] > after["compose"]
    assert shares([cheap, *[later] * 8], OPERATORS)["demonstrate"] > after["demonstrate"]


def test_an_operator_that_has_nothing_to_propose_leaves_its_part_to_the_others() -> None:
    found = shares([{"rewrite": Yield(0.0, 900.0), "demonstrate": Yield(0.0, 100.0)}], OPERATORS)
    assert found["compose"] == pytest.approx(0.25 / 3)
    assert found["rewrite"] == found["demonstrate"] == pytest.approx((1 - 0.25 / 3) / 2)


@given(
    st.lists(st.dictionaries(st.sampled_from(OPERATORS), st.builds(Yield, *[st.floats(0, 1e5)] * 2))),
    st.integers(1, 100),
)
def test_all_proposals_are_shared_out_and_nobody_is_given_up(
    rounds: list[dict[str, Yield]], total: int
) -> None:
    found = shares(rounds, OPERATORS)
    assert sum(found.values()) == pytest.approx(1)
    assert all(part >= 0.25 / 3 - 1e-9 for part in found.values())
    numbers = counts(total, found)
    assert sum(numbers.values()) == total
    assert all(abs(number - total * found[name]) < 1 for name, number in numbers.items())


class Fixed:
    """An operator whose texts are no better; it notes how many were wanted."""

    def __init__(self) -> None:
        self.wanted: list[int] = []
        self.seen: list[tuple[int, int]] = []

    async def propose(self, context: ProposalContext) -> list[str]:
        self.wanted.append(context.count)
        assert context.parent in context.survivors
        assert [record.round for record in context.history] == list(range(context.round))
        return [f"Sort it {context.round} {number}." for number in range(context.count)]


async def test_a_search_gives_more_proposals_to_what_helps_and_the_same_in_all() -> None:
    fixed = Fixed()
    setup = setup_of(operators=["rewrite"], bandit=True, rounds=6, masking="off")
    setup = replace(setup, proposers={"fixed": fixed, "demonstrate": Demonstrate(3)})
    outcome = await search_task(setup)
    won = Counter(
        record.scored_survivors[0].candidate.operator
        for record in outcome.records[1:]
        if record.scored_survivors[0].candidate.round == record.round
    )
    assert won["fixed"] == 0
    assert won
    assert fixed.wanted[0] == 12
    assert fixed.wanted[-1] < 8
    for record in outcome.records[1:]:
        texts = [one.candidate.operator for one in record.candidates if one.candidate.round == record.round]
        texts += [refusal.operator for refusal in record.refusals]
        assert texts.count("fixed") == fixed.wanted[record.round - 1]


async def test_a_continued_search_shares_out_as_an_undisturbed_one() -> None:
    kept: list[RoundRecord] = []
    setup = setup_of(bandit=True, rounds=5, kept=kept, racing=0.2)
    whole = await search_task(replace(setup, proposers={"demonstrate": Demonstrate(3)}))
    for done in range(1, 5):
        again = await search_task(
            replace(setup_of(bandit=True, rounds=5, racing=0.2), proposers={"demonstrate": Demonstrate(3)}),
            kept[:done],
        )
        assert [replace(record, seconds=0.0) for record in again.records[done:]] == [
            replace(record, seconds=0.0) for record in whole.records[done:]
        ]
