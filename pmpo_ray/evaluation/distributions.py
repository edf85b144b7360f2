"""Student's t distribution, for degrees of freedom that need not be whole.

Invariant: tail probabilities are accurate to six digits at least, however small, and never 0.
"""

from __future__ import annotations

import math

_MANY = 1e6
"""Degrees of freedom from which the t distribution is the normal one, to six digits."""
_TINY = 1e-300
_STEPS = 10_000


def t_p_value(t: float, freedom: float) -> float:
    """The two-sided p-value of a t statistic: P(|T| >= |t|), never 0."""
    if freedom >= _MANY:
        return math.erfc(abs(t) / math.sqrt(2)) or math.ulp(0.0)
    return beta_share(freedom / 2, 0.5, freedom / (freedom + t * t)) or math.ulp(0.0)


def t_quantile(level: float, freedom: float) -> float:
    """The t for which P(|T| >= t) is `level`."""
    low, high = 0.0, 1.0
    while t_p_value(high, freedom) > level:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_p_value(middle, freedom) > level else (low, middle)
    return high


def beta_share(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    # The fraction converges fast below the mean of the distribution; above it, the other tail is computed.
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_share(b, a, 1 - x)
    log_factor = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_factor) / a / _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d_1 / (1 + d_2 / (1 + ...)) with the coefficients of DLMF 8.17.23, from left to right (the modified
    method of Lentz)."""
    value = above = 1.0
    below = 0.0
    for step in range(1, _STEPS):
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        below = 1 / ((1 + d * below) or _TINY)
        above = (1 + d / above) or _TINY
        value *= above * below
        if abs(above * below - 1) < 1e-15:
            break
    return value
