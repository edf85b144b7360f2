"""Intervals and tests, against scipy's and by their properties."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from scipy import stats

from pmpo_ray.evaluation.statistics import (
    bootstrap_interval,
    compare,
    holm,
    mcnemar,
    paired_p_value,
    permutation_test,
    pooled,
    rank_correlation,
    stratified_interval,
    wilson_interval,
)


def draw(seed: int, n: int, share: float) -> list[float]:
    rng = random.Random(seed)
    return [float(rng.random() < share) for _ in range(n)]


def test_wilson_intervals() -> None:
    for right, n in ((50, 100), (0, 10), (10, 10), (3, 7)):
        found, expected = wilson_interval(right, n), stats.binomtest(right, n).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    with pytest.raises(ValueError, match="at least one example"):
        wilson_interval(0, 0)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_bootstrap_intervals_are_those_of_scipy(share: float) -> None:
    values = draw(1, 200, share)
    found = bootstrap_interval(values)
    expected = stats.bootstrap(
        (values,), lambda x, axis: x.mean(axis=axis), method="percentile", n_resamples=20_000, rng=3
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert found.low <= found.value <= found.high
    assert found == bootstrap_interval(values)


@pytest.mark.parametrize("n", [59, 60, 600])
def test_values_that_repeat_have_the_interval_of_scipy(n: int) -> None:
    rng = random.Random(n)
    differences = [float(rng.choice((-1, 0, 0, 0, 1, 1))) for _ in range(n)]
    interval = bootstrap_interval(differences)
    expected = stats.bootstrap(
        (differences,), lambda x, axis: x.mean(axis=axis), method="percentile", n_resamples=20_000, rng=3
    ).confidence_interval
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    # Values that differ in the last digits are distinct, so each one is drawn by itself.
    jittered = bootstrap_interval([value + 1e-9 * i for i, value in enumerate(differences)])
    assert (interval.low, interval.high) == pytest.approx((jittered.low, jittered.high), abs=0.02)


def test_an_interval_of_equal_values_is_a_point() -> None:
    found = bootstrap_interval([0.1] * 7)
    assert (found.low, found.value, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.low <= found.value <= found.high
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval([])


def test_a_task_with_many_examples_weighs_no_more_than_one_with_few() -> None:
    assert stratified_interval([[1.0] * 1000, [0.0] * 10]).value == pytest.approx(0.5)


@pytest.mark.slow
def test_nine_of_ten_intervals_hold_the_truth() -> None:
    held = sum(
        interval.low <= 0.3 <= interval.high
        for interval in (bootstrap_interval(draw(seed, 150, 0.3)) for seed in range(60))
    )
    assert held >= 54


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (12, 3), (30, 31), (400, 300)])
def test_mcnemar_is_a_binomial_test_of_what_changed(gained: int, lost: int) -> None:
    before = [False] * gained + [True] * lost + [True, False] * 5
    after = [True] * gained + [False] * lost + [True, False] * 5
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(before, after) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 7, 40, 333, 1000])
def test_mcnemar_is_the_exact_sum_of_binomial_coefficients(n: int) -> None:
    for m in range(0, n // 2 + 1, max(1, n // 40)):
        exact = min(Fraction(1), Fraction(2 * sum(math.comb(n, k) for k in range(m + 1)), 2**n))
        assert mcnemar([False] * (n - m) + [True] * m, [True] * (n - m) + [False] * m) == pytest.approx(
            float(exact), rel=1e-14, abs=0
        )


@pytest.mark.parametrize("lost", [10_000, 9_999, 9_900, 9_500, 8_000])
def test_mcnemar_of_20000_changed_examples(lost: int) -> None:
    gained = 20_000 - lost
    p_value = mcnemar([False] * gained + [True] * lost, [True] * gained + [False] * lost)
    assert p_value == pytest.approx(stats.binomtest(lost, 20_000).pvalue, rel=1e-10, abs=0)


def test_a_p_value_is_never_zero() -> None:
    assert mcnemar([False] * 3000, [True] * 3000) == math.ulp(0.0)
    assert 0 < permutation_test([0.0] * 50, [1.0] * 50) < 0.001


def test_random_signs_of_values_that_repeat_give_the_binomial_test() -> None:
    before, after = [0.0] * 100, [0.5] * 60 + [-0.5] * 40
    assert permutation_test(before, after) == pytest.approx(stats.binomtest(40, 100).pvalue, abs=0.01)
    jittered = [value + 1e-6 * i for i, value in enumerate(after)]
    assert permutation_test(before, jittered) == pytest.approx(permutation_test(before, after), abs=0.02)


@pytest.mark.parametrize("n", [5, 11, 60])
def test_the_permutation_test_is_that_of_scipy(n: int) -> None:
    rng = random.Random(n)
    before = [rng.gauss(0, 1) for _ in range(n)]
    after = [value + rng.gauss(0.3, 1) for value in before]
    expected = stats.permutation_test(
        (before, after),
        lambda x, y, axis: (y - x).mean(axis=axis),
        permutation_type="samples",
        n_resamples=20_000 if n > 14 else 2**n,
        rng=5,
        vectorized=True,
    ).pvalue
    assert permutation_test(before, after) == pytest.approx(expected, abs=0.02 if n > 14 else 1e-9)


def test_without_any_difference_there_is_no_evidence() -> None:
    same = draw(2, 30, 0.5)
    assert compare(same, same).p_value == 1.0
    assert permutation_test(same, same) == 1.0


def test_accuracies_are_compared_by_mcnemar_and_means_by_permutation() -> None:
    before, after = draw(3, 100, 0.4), draw(4, 100, 0.7)
    found = compare(before, after)
    assert (
        found.p_value
        == paired_p_value(before, after)
        == mcnemar([b == 1 for b in before], [a == 1 for a in after])
    )
    assert found.difference.value == pytest.approx(sum(after) / 100 - sum(before) / 100)
    halves = [value / 2 for value in before]
    assert compare(halves, after).p_value == permutation_test(halves, after)


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


def test_holm_corrects_for_the_number_of_tests() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx((0.04, 0.09, 0.09, 0.5))
    assert holm([]) == ()
    assert holm([0.9, 0.8]) == (1.0, 1.0)


def test_rank_correlations_are_those_of_scipy() -> None:
    rng = random.Random(8)
    first = [rng.randrange(20) for _ in range(40)]
    second = [value + rng.randrange(15) for value in first]
    found, p_value = rank_correlation(first, second)
    expected = stats.spearmanr(first, second)
    assert found == pytest.approx(expected.statistic, abs=1e-12)
    assert p_value == pytest.approx(expected.pvalue, abs=0.01)


def test_what_does_not_vary_has_no_correlation() -> None:
    correlation, p_value = rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])
    assert math.isnan(correlation)
    assert p_value == 1.0
