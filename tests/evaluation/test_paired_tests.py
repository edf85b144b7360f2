"""Paired differences: intervals and p-values agree, and are those of the literature and of scipy."""

from __future__ import annotations

import math
import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from pmpo_ray.evaluation.paired_tests import Comparison, compare, paired_p_value, pooled


def draw(seed: int, n: int, share: float) -> list[float]:
    rng = random.Random(seed)
    return [float(rng.random() < share) for _ in range(n)]


def table(gained: int, lost: int, n: int) -> Comparison:
    """The comparison of n examples of which so many are right only after, and only before."""
    rest = n - gained - lost
    before = [0.0] * gained + [1.0] * lost + [1.0] * rest
    after = [1.0] * gained + [0.0] * lost + [1.0] * rest
    return compare(before, after)


def agrees(found: Comparison) -> bool:
    """True if the interval excludes 0 exactly if the p-value is below 5%."""
    excludes = found.difference.low > 0 or found.difference.high < 0
    return excludes == (found.p_value < 0.05)


def test_interval_and_p_value_agree_on_every_small_table() -> None:
    tables = [
        (gained, lost, n)
        for n in (*range(1, 19), 40)
        for gained, lost in product(range(n + 1), repeat=2)
        if gained + lost <= n
    ]
    for gained, lost, n in tables:
        found = table(gained, lost, n)
        assert agrees(found), (gained, lost, n)
        assert -1 <= found.difference.low <= found.difference.value <= found.difference.high <= 1
        assert found.difference.low == pytest.approx(-table(lost, gained, n).difference.high, abs=1e-12)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 20_000))
def test_interval_and_p_value_agree_on_large_tables(gained: int, lost: int, rest: int) -> None:
    if gained + lost + rest:
        assert agrees(table(gained, lost, gained + lost + rest))


def test_the_children_of_the_literature() -> None:
    # Airway hyper-responsiveness of 21 children before and after a transplantation: 1 changed one way, 7 the
    # other (Fagerland, Lydersen & Laake 2014).
    found = table(1, 7, 21)
    assert found.p_value == pytest.approx(0.034, abs=5e-4)
    assert (found.difference.low, found.difference.high) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert found.difference.method == "Tango"


@pytest.mark.parametrize(("gained", "lost", "n"), [(12, 3, 60), (2, 9, 11), (30, 31, 400), (5, 1, 900)])
def test_bounds_are_where_the_score_test_begins_to_reject(gained: int, lost: int, n: int) -> None:
    def statistic(d: float) -> float:
        """The score statistic of the difference d, its nuisance maximised numerically."""

        def unlikely(q: float) -> float:
            cells = ((gained, q + d), (lost, q), (n - gained - lost, 1 - 2 * q - d))
            return -sum(count * math.log(max(share, 1e-300)) for count, share in cells if count)

        bounds = (max(0.0, -d), (1 - d) / 2)
        q = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        return float((gained - lost - n * d) / math.sqrt(n * (2 * q + d - d * d)))

    found = table(gained, lost, n).difference
    assert statistic(found.low) == pytest.approx(1.959964, abs=1e-4)
    assert statistic(found.high) == pytest.approx(-1.959964, abs=1e-4)


def test_p_values_of_right_and_wrong_are_those_of_mcnemar() -> None:
    for gained, lost in ((12, 3), (30, 31), (400, 300), (9_000, 8_000)):
        expected = stats.chi2.sf((gained - lost) ** 2 / (gained + lost), 1)
        assert table(gained, lost, gained + lost + 7).p_value == pytest.approx(expected, rel=1e-9)


def test_a_p_value_is_never_zero() -> None:
    assert table(3000, 0, 3000).p_value == math.ulp(0.0)
    assert 0 < compare([0.25] * 50, [1.0] * 50).p_value < 0.001


def test_without_any_difference_there_is_no_evidence() -> None:
    same = draw(2, 30, 0.5)
    assert compare(same, same).p_value == 1.0
    assert compare(same, same).difference.low < 0 < compare(same, same).difference.high
    losses = [value + 0.1 for value in same]
    assert compare(losses, losses).p_value == 1.0
    with pytest.raises(ValueError, match="at least one example"):
        compare([], [])


def test_accuracies_are_compared_by_tango_and_means_by_permutation() -> None:
    before, after = draw(3, 100, 0.4), draw(4, 100, 0.7)
    found = compare(before, after)
    assert found.p_value == paired_p_value(before, after)
    assert found.difference.value == pytest.approx(sum(after) / 100 - sum(before) / 100)
    halves = [value / 2 for value in before]
    means = compare(halves, after)
    assert means.p_value == paired_p_value(halves, after)
    assert means.difference.method == "permutation"


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=1)
)
def test_interval_and_p_value_of_means_agree(pairs: list[tuple[float, float]]) -> None:
    found = compare([before for before, _ in pairs], [after for _, after in pairs])
    assert agrees(found)
    assert found.difference.low <= found.difference.value <= found.difference.high


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_interval_and_p_value_of_losses_agree(differences: list[float]) -> None:
    found = compare([0.25] * len(differences), [0.25 + value for value in differences])
    assert agrees(found)


def test_random_signs_of_values_that_repeat_give_the_binomial_test() -> None:
    before, after = [0.0] * 100, [0.5] * 60 + [-0.5] * 40
    found = compare(before, after)
    assert found.p_value == pytest.approx(stats.binomtest(40, 100).pvalue, abs=0.01)
    jittered = compare(before, [value + 1e-6 * i for i, value in enumerate(after)])
    assert jittered.p_value == pytest.approx(found.p_value, abs=0.02)
    assert jittered.difference.low == pytest.approx(found.difference.low, abs=0.02)


@pytest.mark.parametrize("n", [5, 11, 60])
def test_the_permutation_test_is_that_of_scipy(n: int) -> None:
    rng = random.Random(n)
    before = [rng.gauss(0, 1) for _ in range(n)]
    after = [value + rng.gauss(0.3, 1) for value in before]

    def expected(shift: float) -> float:
        found = stats.permutation_test(
            (np.array(before), np.array(after) - shift),
            lambda x, y, axis: (y - x).mean(axis=axis),
            permutation_type="samples",
            n_resamples=20_000 if n > 14 else 2**n,
            rng=5,
            vectorized=True,
        )
        return float(found.pvalue)

    found = compare(before, after)
    assert found.p_value == pytest.approx(expected(0.0), abs=0.02 if n > 14 else 1e-9)
    if n > 5:
        width = found.difference.high - found.difference.low
        for bound, outwards in ((found.difference.low, -1), (found.difference.high, 1)):
            assert expected(bound - outwards * 0.01 * width) >= 0.045
            assert expected(bound + outwards * 0.01 * width) <= 0.055


def test_with_few_pairs_that_differ_the_p_value_is_exact() -> None:
    before = [0.0] * 6 + [0.5] * 194
    found = compare(before, [0.5] * 200)
    assert found.p_value == 2 / 2**6
    assert found.difference.low > 0


def test_five_values_bound_nothing() -> None:
    found = compare([0.5] * 5, [0.6, 0.7, 0.8, 0.9, 1.0])
    assert found.p_value == 2 / 2**5
    assert (found.difference.low, found.difference.high) == (-math.inf, math.inf)


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_promised() -> None:
    p_values = [compare(draw(seed, 60, 0.5), draw(1000 + seed, 60, 0.5)).p_value for seed in range(200)]
    assert sum(p < 0.05 for p in p_values) <= 20


def test_pooled_tasks_show_what_no_single_one_does() -> None:
    tasks = [(draw(seed, 50, 0.5), draw(100 + seed, 50, 0.62)) for seed in range(20)]
    together = pooled(tasks)
    assert together.p_value < 0.01
    assert together.difference.low > 0
    assert together.difference.n == 1000


def test_pooled_tasks_weigh_the_same_and_agree_with_their_interval() -> None:
    many, few = (draw(1, 1000, 0.5), draw(2, 1000, 0.5)), (draw(3, 10, 0.2), draw(4, 10, 0.9))
    found = pooled([many, few])
    means = [sum(after) / len(after) - sum(before) / len(before) for before, after in (many, few)]
    assert found.difference.value == pytest.approx(sum(means) / 2)
    assert agrees(found)
