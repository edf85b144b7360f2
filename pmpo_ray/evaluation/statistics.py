"""Confidence intervals and significance tests for held-out results, and corrections for several tests.

Invariants: equal values give equal results in every process (resampling is seeded); p-values are two-sided,
exact or an upper estimate, and never 0; nothing here depends on what was measured.

There is one value per example; values of two instructions are paired by example. The value of an example
that was answered several times (repetitions) is the mean: results generalise over examples.

Resampling takes time proportional to the number of values. If few of them are distinct (1 and 0 for right and
wrong), it draws how often each occurs instead: the distribution is the same, and the time that of the few.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from pmpo_ray.types import Interval

LEVEL = 0.05
"""A p-value below this level is significant."""
RESAMPLES = 10_000
_EXACT_SIGNS = 14
"""Up to this number of differing pairs, the permutation test enumerates all signs."""
_REPEATED = 20
"""If every distinct value occurs this often on average, resampling draws counts instead of values."""
_Z = NormalDist().inv_cdf(0.975)
_SEED = 2505_16307
_CELLS = 1 << 22
"""Numbers that resampling holds in memory at once."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The mean difference (after minus before) on the same examples with its 95% bootstrap interval, and the
    p-value of the hypothesis of no difference."""

    difference: Interval
    p_value: float


def wilson_interval(right: int, n: int) -> Interval:
    """The 95% Wilson score interval of a proportion. Raises ValueError for n < 1."""
    if n < 1:
        raise ValueError("an accuracy needs at least one example")
    share = right / n
    spread = 1 + _Z**2 / n
    centre = (share + _Z**2 / (2 * n)) / spread
    half = _Z * ((share * (1 - share) + _Z**2 / (4 * n)) / n) ** 0.5 / spread
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), n)


def bootstrap_interval(values: Sequence[float]) -> Interval:
    """The mean with its 95% percentile bootstrap interval over examples. Raises ValueError for no values."""
    return stratified_interval([values])


def stratified_interval(groups: Sequence[Sequence[float]]) -> Interval:
    """The mean of the groups' (tasks') means, with its 95% bootstrap interval. Examples are resampled within
    each group, so the interval generalises to other examples of these tasks, not to other tasks. `n` counts
    examples. Raises ValueError for no groups and for an empty group."""
    if not groups or not all(map(len, groups)):
        raise ValueError("an interval needs at least one value in every group")
    rng = np.random.default_rng(_SEED)
    means = np.mean([_resampled_means(np.asarray(group, dtype=float), rng) for group in groups], axis=0)
    value = math.fsum(math.fsum(group) / len(group) for group in groups) / len(groups)
    low, high = np.quantile(means, (0.025, 0.975))
    # Rounding in sums of equal values must not put the value outside of its interval.
    return Interval(value, min(float(low), value), max(float(high), value), sum(map(len, groups)))


def _resampled_means(values: Floats, rng: np.random.Generator) -> Floats:
    """The means of RESAMPLES samples of the values' number, drawn from them with replacement."""
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if n >= _REPEATED * len(distinct):
        means: Floats = rng.multinomial(n, counts / n, size=RESAMPLES) @ distinct / n
        return means
    return np.concatenate([values[rng.integers(n, size=(rows, n))].mean(axis=1) for rows in _batches(n)])


def _batches(columns: int) -> Iterator[int]:
    """Numbers of rows that add up to RESAMPLES, each of at most _CELLS numbers in `columns` columns."""
    rows = max(1, _CELLS // columns)
    return (min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows))


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """The p-value of the exact McNemar test for equal accuracies: a two-sided sign test on the examples that
    exactly one of the two answers correctly.

    For n such examples and m, the smaller count, it is 2 P(X <= m) = 2 C(n, m) / 2^n (1 + r_m + r_m r_(m-1)
    + ...) with X ~ Binomial(n, 1/2) and r_k = C(n, k-1) / C(n, k) = k / (n - k + 1), at most 1. The leading
    factor is computed in whole numbers; the series has positive terms only, so it loses no precision.
    """
    gained = sum(b and not a for a, b in zip(before, after, strict=True))
    lost = sum(a and not b for a, b in zip(before, after, strict=True))
    n, m = gained + lost, min(gained, lost)
    ratios = (k / (n - k + 1) for k in range(m, 0, -1))
    series = math.fsum(accumulate(ratios, mul, initial=1.0))
    # Dividing whole numbers: 2.0**-1100 would be 0.
    return min(1.0, 2 * math.comb(n, m) / 2**n * series) or math.ulp(0.0)


def permutation_test(before: Sequence[float], after: Sequence[float]) -> float:
    """The p-value of the paired permutation (sign-flip) test for a mean difference of 0. It is exact for few
    differing pairs; otherwise it is estimated from RESAMPLES random signs, the observed ones included."""
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    differences = differences[differences != 0]
    count = len(differences)
    if count == 0:
        return 1.0
    observed = abs(differences.sum())
    # Sums in another order differ in the last bits; equal ones must count as equal.
    observed -= 1e-9 * np.abs(differences).sum()
    if count <= _EXACT_SIGNS:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return float(np.mean(np.abs(signs @ differences) >= observed))
    sums = _sums_with_random_signs(differences, np.random.default_rng(_SEED))
    return (int(np.sum(np.abs(sums) >= observed)) + 1) / (RESAMPLES + 1)


def _sums_with_random_signs(values: Floats, rng: np.random.Generator) -> Floats:
    """RESAMPLES sums of the values, every value with a random sign."""
    n = len(values)
    sizes, counts = np.unique(np.abs(values), return_counts=True)
    if n >= _REPEATED * len(sizes):
        positive = np.stack([rng.binomial(count, 0.5, size=RESAMPLES) for count in counts])
        sums: Floats = sizes @ (2 * positive - counts[:, None])
        return sums
    return np.concatenate([(1 - 2 * rng.integers(2, size=(rows, n))) @ values for rows in _batches(n)])


def paired_p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """The p-value of no difference between paired values: by McNemar's test if every value is 0 or 1,
    otherwise by the permutation test."""
    if set(before) | set(after) <= {0.0, 1.0}:
        return mcnemar([b == 1 for b in before], [a == 1 for a in after])
    return permutation_test(before, after)


def compare(before: Sequence[float], after: Sequence[float]) -> Comparison:
    """The mean difference of paired values with its interval, and its p-value."""
    differences = [a - b for a, b in zip(after, before, strict=True)]
    return Comparison(bootstrap_interval(differences), paired_p_value(before, after))


def pooled(tasks: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Comparison:
    """The comparison over several tasks, given as (before, after): the mean over tasks of their mean
    differences. The test flips the signs of single examples, weighted as in that mean."""
    differences = [[a - b for b, a in zip(before, after, strict=True)] for before, after in tasks]
    weighted = [value / len(group) for group in differences for value in group]
    return Comparison(stratified_interval(differences), permutation_test([0.0] * len(weighted), weighted))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p-values adjusted by Holm's method, which controls the family-wise error rate."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return tuple(adjusted)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Spearman's rank correlation, and its p-value from RESAMPLES random permutations; (nan, 1) if either
    sequence is constant or there are fewer than 3 pairs. Raises ValueError for different lengths."""
    a, b = _ranks(first), _ranks(second)
    if len(a) != len(b):
        raise ValueError("a correlation needs pairs")
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan, 1.0
    a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    correlation = float(a @ b) / len(a)
    rng = np.random.default_rng(_SEED)
    shuffled = np.array([rng.permutation(b) for _ in range(RESAMPLES)]) @ a / len(a)
    as_large = int(np.sum(np.abs(shuffled) >= abs(correlation) - 1e-12))
    return max(-1.0, min(1.0, correlation)), (as_large + 1) / (RESAMPLES + 1)


def _ranks(values: Sequence[float]) -> Floats:
    """Ranks from 1; equal values share their mean rank."""
    array = np.asarray(values, dtype=float)
    _, position, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Floats = last - (counts - 1) / 2
    return mean[position]
