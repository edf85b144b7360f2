"""Gains over several searches: the t distribution, and when few searches say little."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from pmpo_ray.evaluation.distributions import t_p_value, t_quantile
from pmpo_ray.evaluation.paired_tests import compare
from pmpo_ray.evaluation.searches import over_searches


@pytest.mark.parametrize("freedom", [1.0, 2.0, 2.37, 9.7, 250.0, 99_999.5, 1e7])
def test_the_t_distribution_is_that_of_scipy(freedom: float) -> None:
    for t in (0.0, 0.3, 1.96, 4.3, 12.7, 30.0):
        assert t_p_value(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-4)
        assert t_p_value(-t, freedom) == t_p_value(t, freedom)
    assert t_quantile(0.05, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-6)


def gains(seed: int, shares: list[float], n: int, *, shared: bool) -> list[dict[str, float]]:
    """The gains of searches whose share of gained examples differs; of `shared` or of own examples."""
    rng = random.Random(seed)
    return [
        {f"{'' if shared else number}-{i}": float(rng.random() < share) for i in range(n)}
        for number, share in enumerate(shares)
    ]


def test_searches_with_examples_of_their_own_are_compared_by_their_means_alone() -> None:
    found = gains(1, [0.1, 0.5, 0.3], 200, shared=False)
    means = [sum(own.values()) / 200 for own in found]
    expected = stats.ttest_1samp(means, 0.0)
    bounds = expected.confidence_interval(0.95)
    result = over_searches(found)
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    assert (result.difference.low, result.difference.high) == pytest.approx((bounds.low, bounds.high))
    assert (result.difference.n, result.difference.method) == (600, "searches")


def test_three_searches_that_differ_prove_less_than_their_examples_do() -> None:
    found = gains(2, [0.02, 0.1, 0.4], 400, shared=True)
    means = [sum(own[example] for own in found) / 3 for example in found[0]]
    over_examples = compare([0.0] * 400, means)
    over_both = over_searches(found)
    assert over_both.difference.value == pytest.approx(over_examples.difference.value)
    assert over_examples.p_value < 0.001
    assert over_both.p_value > 0.05
    assert over_both.difference.low < 0 < over_both.difference.high


def test_searches_that_agree_by_chance_are_no_surer_than_their_examples() -> None:
    half = {str(i): float(i % 2) for i in range(50)}
    others = [{f"{name}-{i}": float(i % 2) for i in range(50)} for name in "xy"]
    result = over_searches([half, *others])
    assert result.difference.value == 0.5
    assert result.difference.high - result.difference.low == pytest.approx(
        3.92 * (0.25 / 150) ** 0.5, abs=1e-3
    )
    alike = over_searches([half, half])
    [low, high] = [alike.difference.low, alike.difference.high]
    assert (low, high) == pytest.approx(
        (0.5 - 1.96 * (0.25 / 50) ** 0.5, 0.5 + 1.96 * (0.25 / 50) ** 0.5), abs=1e-3
    )


def test_interval_and_p_value_agree() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        shares = [rng.random() * 0.4 for _ in range(rng.randrange(2, 6))]
        found = over_searches(gains(seed, shares, 30, shared=bool(seed % 2)))
        excludes = found.difference.low > 0 or found.difference.high < 0
        assert excludes == (found.p_value < 0.05)


def test_without_any_gain_there_is_no_evidence() -> None:
    none = {str(i): 0.0 for i in range(10)}
    found = over_searches([none, none, none])
    assert (found.p_value, found.difference.low, found.difference.high) == (1.0, 0.0, 0.0)


def test_one_search_says_nothing_about_others() -> None:
    with pytest.raises(ValueError, match="two searches"):
        over_searches([{"a": 1.0}])
    with pytest.raises(ValueError, match="each with examples"):
        over_searches([{"a": 1.0}, {}])
