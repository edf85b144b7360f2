"""Survivors, hard cases and the end of a search."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.search.selection import candidate_id, select_survivors, stop_reason
from pmpo_ray.types import Candidate, ScoredCandidate


def scored(name: str, loss: float, parent: str | None = None, text: str | None = None) -> ScoredCandidate:
    made = Candidate(name, text or f"text of {name}", parent, "r0000-0000", "rewrite", int(name[1:5]))
    return ScoredCandidate(made, (), (loss,), loss)


def ids(survivors: tuple[ScoredCandidate, ...]) -> list[str]:
    return [survivor.candidate.id for survivor in survivors]


SEED = scored("r0000-0000", 1.0)


def test_a_child_with_a_strictly_lower_loss_replaces_its_parent() -> None:
    assert ids(select_survivors([SEED], [scored("r0001-0000", 0.9, "r0000-0000")], size=1)) == ["r0001-0000"]


def test_a_child_that_is_only_as_good_does_not() -> None:
    assert ids(select_survivors([SEED], [scored("r0001-0000", 1.0, "r0000-0000")], size=1)) == ["r0000-0000"]


def test_parents_and_children_compete_and_the_best_comes_first() -> None:
    other = scored("r0000-0001", 0.7)
    children = [scored("r0001-0000", 0.8, "r0000-0000"), scored("r0001-0001", 0.5, "r0000-0001")]
    survivors = select_survivors([SEED, other], children, size=3)
    assert ids(survivors) == ["r0001-0001", "r0000-0001", "r0001-0000"]


def test_at_most_half_the_population_shares_a_parent() -> None:
    children = [scored(f"r0001-000{n}", 0.1 * n, "r0000-0000") for n in range(1, 6)]
    survivors = select_survivors([SEED], children, size=4)
    assert ids(survivors) == ["r0001-0001", "r0001-0002", "r0000-0000"]


def test_the_cap_on_siblings_can_be_set() -> None:
    children = [scored(f"r0001-000{n}", 0.1 * n, "r0000-0000") for n in range(1, 6)]
    survivors = select_survivors([SEED], children, size=4, max_siblings=3)
    assert ids(survivors) == ["r0001-0001", "r0001-0002", "r0001-0003", "r0000-0000"]


def test_equal_texts_survive_once_as_the_oldest() -> None:
    again = scored("r0001-0000", 0.5, "r0000-0000", text="TEXT of\n r0000-0000 ")
    twins = [scored(f"r0001-000{n}", 0.6, "r0000-0000", text="Same.") for n in (2, 1)]
    assert ids(select_survivors([SEED], [again, *twins], size=4)) == ["r0001-0001", "r0000-0000"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_never_survives_beside_one_that_is(bad: float) -> None:
    broken = scored("r0001-0000", bad, "r0000-0000")
    assert ids(select_survivors([SEED], [broken], size=2)) == ["r0000-0000"]
    assert ids(select_survivors([broken], [scored("r0001-0001", 9.0)], size=2)) == ["r0001-0001"]
    assert ids(select_survivors([broken], [], size=2)) == ["r0001-0000"]


def test_selection_needs_a_candidate() -> None:
    with pytest.raises(ValueError, match="no candidate"):
        select_survivors([], [], size=1)


losses = st.one_of(st.floats(0, 3), st.sampled_from([0.5, 1.0, math.nan, math.inf]))


@given(
    st.lists(losses, min_size=1, max_size=4),
    st.lists(st.tuples(losses, st.integers(0, 3), st.sampled_from("abcdefgh")), max_size=12),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(1, 3)),
    st.randoms(use_true_random=False),
)
def test_selection_keeps_its_promises(
    old: list[float],
    new: list[tuple[float, int, str]],
    size: int,
    max_siblings: int | None,
    shuffle: random.Random,
) -> None:
    parents = [scored(candidate_id(0, n), loss) for n, loss in enumerate(old)]
    children = [
        scored(candidate_id(1, n), loss, candidate_id(0, of % len(parents)), text)
        for n, (loss, of, text) in enumerate(new)
    ]
    survivors = select_survivors(parents, children, size=size, max_siblings=max_siblings)

    assert 1 <= len(survivors) <= size
    finite = [loss for loss in old if math.isfinite(loss)]
    if finite:
        assert survivors[0].loss <= min(finite)
        assert [survivor.loss for survivor in survivors] == sorted(survivor.loss for survivor in survivors)
    of_parents = [survivor.candidate.parent for survivor in survivors if survivor.candidate.parent]
    cap = max_siblings if max_siblings is not None else math.ceil(size / 2)
    assert all(of_parents.count(parent) <= cap for parent in of_parents)
    assert len({survivor.candidate.text for survivor in survivors}) == len(survivors)

    shuffle.shuffle(children)
    assert ids(select_survivors(parents, children, size=size, max_siblings=max_siblings)) == ids(survivors)


def test_ids_sort_by_age() -> None:
    made = [candidate_id(round_, index) for round_ in (0, 3, 20) for index in (0, 9, 12)]
    assert made[5] == "r0003-0012"
    assert made == sorted(made)
    with pytest.raises(ValueError, match="9999"):
        candidate_id(10_000, 0)


def reason(losses: list[float], values: list[float] | None = None, **limits: float) -> str | None:
    settings = {
        "rounds": 20,
        "patience": None,
        "target_loss": None,
        "tokens": 0,
        "max_tokens": None,
        "seconds": 0.0,
        "max_seconds": None,
    }
    return stop_reason(losses, values or losses, **{**settings, **limits})  # type: ignore[arg-type]


def test_a_search_goes_on_while_nothing_ends_it() -> None:
    assert reason([]) is None
    assert reason([1.0, 0.9]) is None


def test_round_zero_is_not_counted_among_the_rounds() -> None:
    assert reason([1.0, 0.9], rounds=2) is None
    assert reason([1.0, 0.9, 0.8], rounds=2) == "rounds"
    assert reason([1.0], rounds=0) == "rounds"
    assert reason([], rounds=0) is None


def test_patience_ends_a_search_after_so_many_rounds_without_gain() -> None:
    assert reason([1.0, 0.9, 0.9], patience=2) is None
    assert reason([1.0, 0.9, 0.9, 0.9], patience=2) == "patience"
    assert reason([1.0, 0.9, 0.9, 0.8], patience=2) is None


def test_patience_goes_by_the_value_and_the_target_by_the_loss() -> None:
    # More readable in every round, at the price of a higher loss.
    losses, values = [1.0, 1.2, 1.1], [3.0, 2.8, 2.6]
    assert reason(losses, patience=2) == "patience"
    assert reason(losses, values, patience=2) is None
    assert reason(losses, [3.0, 3.0, 3.0], patience=2) == "patience"
    assert reason(losses, values, target_loss=1.15) == "target loss"
    assert reason(losses, [0.1] * 3, target_loss=1.05) is None


def test_a_target_loss_is_reached_where_the_loss_is_no_higher() -> None:
    assert reason([1.0, 0.51], target_loss=0.5) is None
    assert reason([1.0, 0.5], target_loss=0.5) == "target loss"


def test_budgets_end_a_search_once_they_are_used_up() -> None:
    assert reason([1.0], tokens=99, max_tokens=100) is None
    assert reason([1.0], tokens=100, max_tokens=100) == "token budget"
    assert reason([1.0], seconds=59.0, max_seconds=60.0) is None
    assert reason([1.0], seconds=60.0, max_seconds=60.0) == "time budget"
