"""What held-out figures are worth: intervals, tests, and corrections.

Invariants: equal values give equal results, whatever process computes them (resampling is seeded); p-values
are two-sided, and exact or an upper estimate, never 0; nothing here knows what was measured.

Values are one number an example, paired where two instructions met the same examples. Where an example was
answered several times (seeds), its value is the mean: the examples are what a result generalises over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from pmpo_ray.types import Interval

LEVEL = 0.05
"""P-values from here on count as not significant."""
RESAMPLES = 10_000
_EXACT_SIGNS = 14
"""With up to so many pairs that differ, all their signs are tried."""
_Z = NormalDist().inv_cdf(0.975)
_SEED = 2505_16307
_CELLS = 1 << 22
"""Numbers that a resampling holds at once."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """After against before on the same examples: the mean of the differences with its 95% bootstrap interval,
    and the p-value of no difference."""

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
    """The mean over groups (tasks) of their means, with its 95% bootstrap interval: examples are drawn anew
    within each group, so it speaks of these tasks and other examples of theirs. `n` counts examples."""
    if not groups or not all(map(len, groups)):
        raise ValueError("an interval needs at least one value in every group")
    rng = np.random.default_rng(_SEED)
    means = np.mean([_resampled_means(np.asarray(group, dtype=float), rng) for group in groups], axis=0)
    value = math.fsum(math.fsum(group) / len(group) for group in groups) / len(groups)
    low, high = np.quantile(means, (0.025, 0.975))
    # Rounding in sums of equal values must not put the value outside of its interval.
    return Interval(value, min(float(low), value), max(float(high), value), sum(map(len, groups)))


def _resampled_means(values: Floats, rng: np.random.Generator) -> Floats:
    rows = max(1, _CELLS // len(values))
    parts = [
        values[rng.integers(len(values), size=(min(rows, RESAMPLES - start), len(values)))].mean(axis=1)
        for start in range(0, RESAMPLES, rows)
    ]
    return np.concatenate(parts)


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """The exact McNemar test: the p-value of both having the same accuracy, from the examples that just one
    of them has right (a sign test on these)."""
    gained = sum(b and not a for a, b in zip(before, after, strict=True))
    lost = sum(a and not b for a, b in zip(before, after, strict=True))
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    # Whole numbers up to here: 2.0**-1100 would be 0.
    return float(min(1.0, 2 * tail / 2**changed)) or math.ulp(0.0)


def permutation_test(before: Sequence[float], after: Sequence[float]) -> float:
    """The paired permutation test: the p-value of differences whose signs are a matter of chance, for the
    mean. Exact for few pairs that differ, else from RESAMPLES random signs, with the one found counted in."""
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    differences = differences[differences != 0]
    count = len(differences)
    if count == 0:
        return 1.0
    found = abs(differences.sum())
    # Sums in another order differ in the last bits; equal ones must count as equal.
    found -= 1e-9 * np.abs(differences).sum()
    if count <= _EXACT_SIGNS:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return float(np.mean(np.abs(signs @ differences) >= found))
    rng = np.random.default_rng(_SEED)
    rows = max(1, _CELLS // count)
    as_large = 0
    for start in range(0, RESAMPLES, rows):
        size = (min(rows, RESAMPLES - start), count)
        as_large += int(np.sum(np.abs((1 - 2 * rng.integers(2, size=size)) @ differences) >= found))
    return (as_large + 1) / (RESAMPLES + 1)


def compare(before: Sequence[float], after: Sequence[float]) -> Comparison:
    """After against before: McNemar's test where every value is 0 or 1, else the permutation test."""
    differences = [a - b for a, b in zip(after, before, strict=True)]
    return Comparison(bootstrap_interval(differences), paired_p_value(before, after))


def paired_p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """The p-value of `compare` alone, without the bootstrap that takes most of its time."""
    if set(before) | set(after) <= {0.0, 1.0}:
        return mcnemar([b == 1 for b in before], [a == 1 for a in after])
    return permutation_test(before, after)


def pooled(tasks: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Comparison:
    """(before, after) of several tasks together: the mean over tasks of their differences. The test shuffles
    signs within tasks, each example weighing what it weighs in that mean."""
    differences = [[a - b for b, a in zip(before, after, strict=True)] for before, after in tasks]
    weighted = [value / len(group) for group in differences for value in group]
    return Comparison(stratified_interval(differences), permutation_test([0.0] * len(weighted), weighted))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P-values corrected for their number by Holm's method, which holds the chance of any false alarm."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return tuple(adjusted)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Spearman's rank correlation and its p-value from RESAMPLES random orders; (nan, 1) where one of them
    does not vary or there are fewer than 3 pairs."""
    a, b = _ranks(first), _ranks(second)
    if len(a) != len(b):
        raise ValueError("a correlation needs pairs")
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan, 1.0
    a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    found = float(a @ b) / len(a)
    rng = np.random.default_rng(_SEED)
    shuffled = np.array([rng.permutation(b) for _ in range(RESAMPLES)]) @ a / len(a)
    as_large = int(np.sum(np.abs(shuffled) >= abs(found) - 1e-12))
    return max(-1.0, min(1.0, found)), (as_large + 1) / (RESAMPLES + 1)


def _ranks(values: Sequence[float]) -> Floats:
    """Ranks from 1 on, equal values sharing the mean of theirs."""
    array = np.asarray(values, dtype=float)
    _, place, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Floats = last - (counts - 1) / 2
    return mean[place]
