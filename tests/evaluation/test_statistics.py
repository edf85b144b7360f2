"""Intervals and tests, against scipy's and by their properties."""

from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from pmpo_ray.evaluation.statistics import (
    bootstrap_interval,
    holm,
    label_interval,
    mean_interval,
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


def test_a_share_of_right_answers_has_wilsons_interval_and_every_other_mean_a_bootstrap() -> None:
    right = draw(7, 90, 0.7)
    assert mean_interval(right) == wilson_interval(int(sum(right)), 90)
    assert mean_interval(right).method == "Wilson"
    halves = [*right, 0.5]
    assert mean_interval(halves) == bootstrap_interval(halves)
    assert mean_interval(halves).method == "bootstrap"
    with pytest.raises(ValueError, match="at least one example"):
        mean_interval([])


def test_every_label_counts_the_same_in_a_balanced_accuracy() -> None:
    found = label_interval([[1.0] * 190, [0.0] * 8 + [1.0] * 2])
    assert found.value == pytest.approx((1.0 + 0.2) / 2)
    assert (found.n, found.method) == (200, "Wilson by label")
    rare = wilson_interval(2, 10)
    assert found.high == pytest.approx(found.value + (rare.high - rare.value) / 2)
    # The rare label's ten examples leave more open than 200 examples of one kind would.
    assert found.high - found.low > wilson_interval(120, 200).high - wilson_interval(120, 200).low


def test_an_interval_of_labels_is_inside_what_is_possible() -> None:
    for right in range(4):
        found = label_interval([[1.0] * right + [0.0] * (3 - right), [0.0] * 40, [1.0] * 40])
        assert 0 <= found.low <= found.value <= found.high <= 1
    # Of two examples that are both right nobody knows much, and the interval says so.
    assert label_interval([[1.0, 1.0], [1.0] * 100]).low < 0.85
    mixed = label_interval([[0.5, 1.0], [1.0] * 100])
    assert mixed == stratified_interval([[0.5, 1.0], [1.0] * 100])


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
