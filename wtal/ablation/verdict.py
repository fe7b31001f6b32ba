"""Paired differences over worlds, and the verdict whether each is as expected."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wtal.ablation.claims import Comparison
from wtal.ablation.results import Results, values
from wtal.ablation.statistics import Spread, spread, t_probability

NO_GAIN = 2.0
"""Gains below this value, in mAP, count as no gain."""


def paired(results: Results, benchmark: str, comparison: Comparison) -> tuple[Spread, int] | None:
    """The paired difference over the worlds that have both rows, and the number of worlds in which it is positive.

    None if no world has both rows.
    """
    left = values(results, benchmark, comparison.row, comparison.of)
    right = values(results, benchmark, comparison.to, comparison.of)
    differences = [left[key] - right[key] for key in left if key in right]
    return (spread(differences), sum(d > 0 for d in differences)) if differences else None


def verdict(comparison: Comparison, difference: Spread) -> str:
    """``holds``, ``the opposite``, ``not shown`` or ``too few worlds``; empty if the comparison has no expectation.

    ``more`` holds if the whole 95 % interval is above zero, and the opposite is shown if the whole interval is below
    zero. ``less`` is the reverse. ``no gain`` holds if the whole interval is below :data:`NO_GAIN`; otherwise the
    opposite is shown if the whole interval is above zero.
    """
    if comparison.expect is None:
        return ""
    if difference.half_width is None:
        return "too few worlds"
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    if comparison.expect == "no gain":
        return "holds" if high < NO_GAIN else "the opposite" if low > 0 else "not shown"
    if comparison.expect == "less":
        low, high = -high, -low
    return "holds" if low > 0 else "the opposite" if high < 0 else "not shown"


def surviving(results: Results, benchmark: str, comparisons: Sequence[Comparison]) -> tuple[int, list[Comparison]]:
    """How many comparisons hold as ``more`` or ``less``, and which of them survive Holm's correction at 5 % (1979).

    The correction counts every comparison that is expected to be more or less.
    """
    tried = []
    for comparison in comparisons:
        pair = paired(results, benchmark, comparison)
        if pair is None or comparison.expect not in ("more", "less") or pair[0].deviation is None:
            continue
        tried.append((_p_value(pair[0]), comparison, verdict(comparison, pair[0]) == "holds"))
    tried.sort(key=lambda one: one[0])
    kept = []
    for place, (p, comparison, holds) in enumerate(tried):
        if p * (len(tried) - place) > 0.05:
            break
        if holds:
            kept.append(comparison)
    return sum(holds for _, _, holds in tried), kept


def _p_value(difference: Spread) -> float:
    """Two-sided p-value of the hypothesis that the mean is zero."""
    if not difference.deviation:
        return float(difference.mean == 0)
    t = abs(difference.mean) * math.sqrt(difference.count) / difference.deviation
    return 2 * (1 - t_probability(t, difference.count - 1))
