"""Means and 95 % t-intervals, without SciPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of ``count`` values; the deviation of a single value is None."""

    count: int
    mean: float
    deviation: float | None

    @property
    def half_width(self) -> float | None:
        """Half the width of the 95 % t-interval of the mean; None for a single value."""
        if self.deviation is None:
            return None
        return t_quantile(0.975, self.count - 1) * self.deviation / math.sqrt(self.count)


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of the values.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("values is empty, expected at least one")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(1, mean, None)
    return Spread(len(values), mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)))


def t_probability(t: float, freedom: int) -> float:
    """The distribution function of Student's t, with ``freedom`` degrees (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    theta = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = freedom % 2
    term = total = (cosine if freedom > 1 else 0.0) if odd else 1.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    between = 2 / math.pi * (theta + sine * total) if odd else sine * total  # P(-t < T < t), negative if t is
    return 0.5 + 0.5 * between


def t_quantile(probability: float, freedom: int) -> float:
    """The t at which :func:`t_probability` is ``probability``, by bisection.

    Raises:
        ValueError: the probability is not between one half and 1, or ``freedom`` is less than 1.
    """
    if not 0.5 < probability < 1 or freedom < 1:
        raise ValueError(f"t_quantile({probability}, {freedom}): expected a probability in (0.5, 1) and freedom >= 1")
    low, high = 0.0, 1.0
    while t_probability(high, freedom) < probability:
        high *= 2
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if t_probability(middle, freedom) < probability else (low, middle)
    return high
