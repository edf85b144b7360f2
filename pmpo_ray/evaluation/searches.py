"""Results of several searches for the same task, as a sample of all searches that could have been made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from pmpo_ray.evaluation.distributions import t_p_value, t_quantile
from pmpo_ray.evaluation.paired_tests import Comparison
from pmpo_ray.evaluation.statistics import LEVEL, Floats
from pmpo_ray.outcomes import Interval


def over_searches(gains: Sequence[Mapping[str, float]]) -> Comparison:
    """The mean gain of several searches for the same task, each given as the differences on its held-out
    examples by their ids. It generalises to other searches (other seeds: training examples, samples of the
    rewriter) and to other examples, both at once; `n` counts the different examples.

    Searches and examples are random effects, as readers and cases are in diagnostic studies (Obuchowski &
    Rockette 1995; degrees of freedom by Hillis 2007, "A comparison of denominator degrees of freedom methods
    for multiple observer ROC analysis"). With S searches, the mean gain has the variance

        V = (variance between the searches' means) / S + max(0, C)

    where C is the mean covariance of two searches' means because they share examples, and
    V^2 (S - 1) / (the first term)^2 degrees of freedom. V is never taken to be smaller than the variance over
    examples alone: few searches can agree by chance. The interval and the p-value are those of the t
    distribution. Resampling few searches instead gives too narrow intervals: a hierarchical bootstrap of
    three searches that differ by much contains the truth in 8 of 10 cases. Raises ValueError for fewer than
    2 searches and for one without examples.
    """
    if len(gains) < 2 or not all(gains):
        raise ValueError("a result over searches needs two searches, each with examples")
    means = [fmean(own.values()) for own in gains]
    count, value = len(gains), fmean(means)
    between = math.fsum((mean - value) ** 2 for mean in means) / (count - 1) / count
    products = _example_products(gains, means)
    shared = float(products.sum() - np.trace(products)) / (count * (count - 1))
    variance = max(between + max(0.0, shared), float(products.sum()) / count**2)
    freedom = variance**2 * (count - 1) / between**2 if between else math.inf
    half = t_quantile(LEVEL, freedom) * math.sqrt(variance)
    n = len({example for own in gains for example in own})
    interval = Interval(value, value - half, value + half, n, "searches")
    if value == 0 or variance == 0:
        return Comparison(interval, 1.0 if value == 0 else math.ulp(0.0))
    return Comparison(interval, t_p_value(value / math.sqrt(variance), freedom))


def _example_products(gains: Sequence[Mapping[str, float]], means: Sequence[float]) -> Floats:
    """The covariances (S x S) of the searches' mean gains over the examples that they share; on the diagonal,
    the variances of the means over their own examples."""
    columns: dict[str, int] = {}
    for own in gains:
        for example in own:
            columns.setdefault(example, len(columns))
    parts = np.zeros((len(gains), len(columns)))
    for row, (own, mean) in enumerate(zip(gains, means, strict=True)):
        for example, gain in own.items():
            parts[row, columns[example]] = (gain - mean) / len(own)
    products: Floats = parts @ parts.T
    return products
