"""Confidence intervals of means, corrections for several tests, and rank correlation.

Invariants: equal values give equal results in every process (resampling is seeded); p-values are two-sided
and never 0; nothing here depends on what was measured.

There is one kind of interval for one kind of figure, which `Interval.method` names:

- Wilson: the share of right answers among n examples. Wilson's score interval (Wilson 1927).
- Wilson by label: the mean of several such shares, as a balanced accuracy is.
- bootstrap: every other mean (over repetitions, of preferences, scores or losses), and means over tasks.
- Tango, permutation: differences on the same examples (`pmpo_ray.evaluation.paired_tests`).
- searches: a mean difference over several searches (`pmpo_ray.evaluation.searches`).

`python -m benchmarks.coverage` measures how often each of them contains the truth. There is one value per
example; the value of one that was answered several times (repetitions) is the mean. All intervals but the
last generalise to other examples from the same source, for the instructions at hand.

Resampling takes time proportional to the number of values. If few of them are distinct (1 and 0 for right and
wrong), it draws how often each occurs instead: the distribution is the same, and the time that of the few.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import NormalDist, fmean

import numpy as np
import numpy.typing as npt

from pmpo_ray.outcomes import Interval

LEVEL = 0.05
"""A p-value below this level is significant."""
RESAMPLES = 10_000
REPEATED = 20
"""If every distinct value occurs this often on average, resampling draws counts instead of values."""
Z = NormalDist().inv_cdf(1 - LEVEL / 2)
"""The distance from 0 that a standard normal value exceeds with probability LEVEL."""
SEED = 2505_16307
"""The seed of every resampling."""
_CELLS = 1 << 22
"""Numbers that resampling holds in memory at once."""

Floats = npt.NDArray[np.float64]


def wilson_interval(right: int, n: int) -> Interval:
    """The 95% Wilson score interval of a proportion. Raises ValueError for n < 1."""
    if n < 1:
        raise ValueError("an accuracy needs at least one example")
    share = right / n
    spread = 1 + Z**2 / n
    centre = (share + Z**2 / (2 * n)) / spread
    half = Z * ((share * (1 - share) + Z**2 / (4 * n)) / n) ** 0.5 / spread
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), n, "Wilson")


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean with its 95% interval: Wilson's if every value is 0 or 1, otherwise a bootstrap. Raises
    ValueError for no values."""
    if are_shares(values):
        return wilson_interval(round(math.fsum(values)), len(values))
    return bootstrap_interval(values)


def are_shares(values: Iterable[float]) -> bool:
    """True if every value is 0 or 1."""
    return set(values) <= {0.0, 1.0}


def label_interval(groups: Sequence[Sequence[float]]) -> Interval:
    """The mean of the groups' (labels') means, with its 95% interval. Each group counts the same, however
    many examples it has.

    If every value is 0 or 1, the groups' Wilson intervals are combined by the squares of their arms (Zou,
    Huang & Zhang 2009, "A note on confidence interval estimation for a linear function of binomial
    proportions"). A bootstrap of such groups is too narrow: it takes a label with 2 of 2 right for a certain
    one. For other values it is a bootstrap within each group. Raises ValueError as `stratified_interval`.
    """
    if not groups or not all(are_shares(group) for group in groups):
        return stratified_interval(groups)
    parts = [mean_interval(group) for group in groups]
    value, n = fmean(part.value for part in parts), sum(part.n for part in parts)
    below = math.hypot(*(part.value - part.low for part in parts)) / len(parts)
    above = math.hypot(*(part.high - part.value for part in parts)) / len(parts)
    return Interval(value, value - below, value + above, n, "Wilson by label")


def bootstrap_interval(values: Sequence[float]) -> Interval:
    """The mean with its 95% percentile bootstrap interval over examples. Raises ValueError for no values."""
    return stratified_interval([values])


def stratified_interval(groups: Sequence[Sequence[float]]) -> Interval:
    """The mean of the groups' (tasks') means, with its 95% bootstrap interval. Examples are resampled within
    each group, so the interval generalises to other examples of these tasks, not to other tasks. `n` counts
    examples. Raises ValueError for no groups and for an empty group."""
    if not groups or not all(map(len, groups)):
        raise ValueError("an interval needs at least one value in every group")
    rng = np.random.default_rng(SEED)
    means = np.mean([_resampled_means(np.asarray(group, dtype=float), rng) for group in groups], axis=0)
    value = math.fsum(math.fsum(group) / len(group) for group in groups) / len(groups)
    low, high = np.quantile(means, (0.025, 0.975))
    # Rounding in sums of equal values must not put the value outside of its interval.
    n = sum(map(len, groups))
    return Interval(value, min(float(low), value), max(float(high), value), n, "bootstrap")


def _resampled_means(values: Floats, rng: np.random.Generator) -> Floats:
    """The means of RESAMPLES samples of the values' number, drawn from them with replacement."""
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if n >= REPEATED * len(distinct):
        means: Floats = rng.multinomial(n, counts / n, size=RESAMPLES) @ distinct / n
        return means
    return np.concatenate(
        [values[rng.integers(n, size=(rows, n))].mean(axis=1) for rows in batches(n, RESAMPLES)]
    )


def batches(columns: int, total: int) -> Iterator[int]:
    """Numbers of rows that add up to `total`, each of at most _CELLS numbers in `columns` columns."""
    rows = max(1, _CELLS // columns)
    return (min(rows, total - start) for start in range(0, total, rows))


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
    rng = np.random.default_rng(SEED)
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
