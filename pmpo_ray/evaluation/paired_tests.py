"""Tests of differences on the same examples, with the intervals of all differences that they do not reject.

Invariants: the interval of a difference comes from the same test as its p-value, so it excludes 0 exactly if
the p-value is below LEVEL; p-values are two-sided and never 0; equal values give equal results in every
process. Results generalise to other examples from the same source, for the two instructions at hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pmpo_ray.evaluation.statistics import LEVEL, REPEATED, RESAMPLES, SEED, Floats, Z, are_shares, batches
from pmpo_ray.outcomes import Interval

_EXACT_SIGNS = 14
"""Up to this number of differing pairs, the permutation test enumerates all signs."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The mean difference (after minus before) on the same examples with its 95% interval, and the p-value of
    the hypothesis of no difference, both by the same test."""

    difference: Interval
    p_value: float


def compare(before: Sequence[float], after: Sequence[float]) -> Comparison:
    """The comparison of paired values: by Tango's score test if every value is 0 or 1, otherwise by the
    permutation test. Raises ValueError for no values."""
    if are_shares(before) and are_shares(after):
        return _tango(*_changes(before, after), len(before))
    return _permutation([a - b for b, a in zip(before, after, strict=True)], [1.0] * len(before))


def paired_p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """The p-value of `compare` alone, which takes a fraction of its time for right and wrong answers."""
    if are_shares(before) and are_shares(after):
        return _mcnemar(*_changes(before, after))
    return compare(before, after).p_value


def pooled(tasks: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Comparison:
    """The comparison over several tasks, given as (before, after): the mean over tasks of their mean
    differences, by the permutation test of single examples, weighted as in that mean. It generalises to other
    examples of these tasks, not to other tasks."""
    values, weights = [], []
    for before, after in tasks:
        values += [a - b for b, a in zip(before, after, strict=True)]
        weights += [1 / (len(tasks) * len(before))] * len(before)
    return _permutation(values, weights)


def _changes(before: Sequence[float], after: Sequence[float]) -> tuple[int, int]:
    """The numbers of examples that are right only after, and only before."""
    gained = sum(a > b for b, a in zip(before, after, strict=True))
    lost = sum(a < b for b, a in zip(before, after, strict=True))
    return gained, lost


def _mcnemar(gained: int, lost: int) -> float:
    """The p-value of McNemar's test, without a correction for continuity: the score test of equal shares. It
    is the test at 0 of Tango's interval. Its rate of false alarms stays near 5% (at most 5.3% unless almost
    every answer changes), where that of the exact test is often below 3% (Fagerland, Lydersen & Laake 2013,
    "The McNemar test for binary matched-pairs data")."""
    changed = gained + lost
    if changed == 0:
        return 1.0
    return math.erfc(abs(gained - lost) / math.sqrt(2 * changed)) or math.ulp(0.0)


def _tango(gained: int, lost: int, n: int) -> Comparison:
    """The difference of two shares on the same n examples, by Tango's score test (Tango 1998, "Equivalence
    test and confidence interval for the difference in proportions for the paired-sample design").

    The interval holds every difference d that the test does not reject:

        |gained - lost - n d| <= z sqrt(n (2 q + d (1 - d)))

    with q the likeliest share of lost examples if the difference is d: the positive root of
    2n q^2 + ((2n - gained + lost) d - gained - lost) q - lost d (1 - d).
    """
    if n < 1:
        raise ValueError("a comparison needs at least one example")

    def held(d: float) -> bool:
        linear = (2 * n - gained + lost) * d - gained - lost
        root = math.sqrt(max(0.0, linear * linear + 8 * n * lost * d * (1 - d)))
        q = (root - linear) / (4 * n)
        return abs(gained - lost - n * d) <= Z * math.sqrt(max(0.0, n * (2 * q + d * (1 - d))))

    value = (gained - lost) / n
    low, high = _last_held(held, value, -1.0), _last_held(held, value, 1.0)
    return Comparison(Interval(value, low, high, n, "Tango"), _mcnemar(gained, lost))


def _last_held(held: Callable[[float], bool], inside: float, end: float) -> float:
    """The last value from `inside`, which is held, towards `end` that is held, by bisection."""
    if held(end):
        return end
    for _ in range(60):
        middle = (inside + end) / 2
        inside, end = (middle, end) if held(middle) else (inside, middle)
    return inside


def _permutation(values: Sequence[float], weights: Sequence[float]) -> Comparison:
    """The weighted mean of differences by the permutation (sign-flip) test, and the interval of all shifts d
    that the test does not reject when d is taken from every difference.

    Random signs part the differences into two halves. The sum with these signs is as large as the observed
    one exactly if d lies between the means of the halves (Hartigan 1969, "Using subsample values as typical
    values"). So the p-value of d is the share of pairs of halves with d between their means, and the bounds
    of the interval are quantiles of these means. For few differing pairs all signs are tried; otherwise
    RESAMPLES are drawn, and the observed ones count as one more. With fewer than 6 examples no difference can
    be significant, and the interval has no bounds (they are infinite).
    """
    sums = np.array([values, np.ones(len(values))]).T * np.asarray(weights, dtype=float)[:, None]
    if not len(sums):
        raise ValueError("a comparison needs at least one example")
    total = sums.sum(axis=0)
    value, n = float(total[0] / total[1]), len(values)
    if not sums[:, 0].any():
        return Comparison(Interval(0.0, 0.0, 0.0, n, "permutation"), 1.0)
    halves, is_exact = _halves(sums)
    lows, highs = _means_of_halves(halves, total, rounding=1e-12 * np.abs(sums[:, 0]).sum())
    others = 0 if is_exact else 1
    allowed = math.ceil(LEVEL * (len(lows) + others)) - others
    low = float(np.partition(lows, allowed - 1)[allowed - 1])
    high = float(-np.partition(-highs, allowed - 1)[allowed - 1])
    around = int(np.sum((lows <= 0) & (highs >= 0)))
    p_value = (around + others) / (len(lows) + others)
    # The mean itself, and a bound of 0, are in the interval whatever the rounding of sums.
    return Comparison(Interval(value, min(low, value), max(high, value), n, "permutation"), p_value)


def _means_of_halves(halves: Floats, total: Floats, rounding: float) -> tuple[Floats, Floats]:
    """The smaller and the larger mean of each half and its complement, from their sums and weights (k x 2).
    Sums below `rounding` are 0. If a half is empty, every d lies between the two."""
    parts = np.stack([halves, total - halves])
    parts[np.abs(parts[..., 0]) <= rounding, 0] = 0.0
    empty = parts[..., 1] <= 1e-12 * total[1]
    means = parts[..., 0] / np.where(empty, 1.0, parts[..., 1])
    lows, highs = means.min(axis=0), means.max(axis=0)
    lows[empty.any(axis=0)], highs[empty.any(axis=0)] = -np.inf, np.inf
    return lows, highs


def _halves(sums: Floats) -> tuple[Floats, bool]:
    """The sums of rows (n x 2) over halves that random signs choose, and True if the signs of all differing
    pairs are enumerated: then the p-value is exact."""
    rng = np.random.default_rng(SEED)
    differing = sums[:, 0] != 0
    count = int(differing.sum())
    if count > _EXACT_SIGNS:
        return _random_halves(sums, RESAMPLES, rng), False
    signs = ((np.arange(2**count)[:, None] >> np.arange(count)) & 1).astype(float)
    halves = signs @ sums[differing]
    rest = sums[~differing]
    if len(rest):
        halves = np.repeat(halves, -(-RESAMPLES // len(halves)), axis=0)
        halves += _random_halves(rest, len(halves), rng)
    return halves, True


def _random_halves(sums: Floats, size: int, rng: np.random.Generator) -> Floats:
    """The sums of rows (n x 2) over `size` random halves."""
    n = len(sums)
    distinct, counts = np.unique(sums, axis=0, return_counts=True)
    if n >= REPEATED * len(distinct):
        drawn: Floats = np.stack([rng.binomial(count, 0.5, size=size) for count in counts], axis=1) @ distinct
        return drawn
    parts = []
    for rows in batches(n, size):
        bits = np.unpackbits(rng.integers(256, size=(rows, -(-n // 8)), dtype=np.uint8), axis=1, count=n)
        parts.append(bits.astype(float) @ sums)
    return np.concatenate(parts)
