"""Paired differences, verdicts, and what is left of many."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtal.ablation.claims import Comparison
from wtal.ablation.statistics import spread, t_quantile
from wtal.ablation.verdict import paired, surviving, verdict


def run(world: int, seed: int = 0, **rows: float) -> dict:
    return {
        "benchmark": "small",
        "world": world,
        "seed": seed,
        "rows": {title: {"mAP": value, "snippets": {}} for title, value in rows.items()},
    }


@pytest.mark.parametrize(
    ("expect", "differences", "told"),
    [
        ("more", [2.0, 3.0, 2.5], "holds"),
        ("more", [-2.0, -3.0, -2.5], "the opposite"),
        ("more", [-1.0, 3.0, 2.5], "not shown"),
        ("more", [2.0], "too few worlds"),
        ("less", [-2.0, -3.0, -2.5], "holds"),
        ("less", [2.0, 3.0, 2.5], "the opposite"),
        ("less", [-1.0, 3.0, 2.5], "not shown"),
        ("no gain", [-2.0, -3.0, -2.5], "holds"),
        ("no gain", [0.5, 0.6, 0.7], "holds"),  # a gain, of no account
        ("no gain", [-1.0, 2.0, 0.0], "not shown"),
        ("no gain", [12.0, 13.0, 12.5], "the opposite"),
        (None, [12.0, 13.0, 12.5], ""),
        (None, [12.0], ""),
    ],
)
def test_verdicts(expect: str | None, differences: list[float], told: str) -> None:
    assert verdict(Comparison("a", "b", expect=expect), spread(differences)) == told


def test_differences_are_paired_by_world() -> None:
    results = {"runs": [run(0, a=5.0, b=1.0), run(1, b=7.0, a=6.0), run(2, a=9.0), run(3, b=0.0)]}
    found, positive = paired(results, "small", Comparison("a", "b"))
    assert (found.count, found.mean, positive) == (2, 1.5, 1)
    assert paired(results, "small", Comparison("a", "c")) is None


def test_seeds_of_a_world_are_no_worlds_more() -> None:
    results = {"runs": [run(0, 0, a=5.0, b=1.0), run(0, 1, a=7.0, b=1.0), run(1, 0, a=3.0, b=2.0)]}
    found, positive = paired(results, "small", Comparison("a", "b"))
    assert (found.count, found.mean, positive) == (2, 3.0, 2)


def holm(p_values: list[float]) -> set[int]:
    """By the definition of the adjusted p-value: the largest of those up to it, each times how many are left."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [max(p_values[order[j]] * (len(order) - j) for j in range(i + 1)) for i in range(len(order))]
    return {order[i] for i in range(len(order)) if adjusted[i] <= 0.05}


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 6), worlds=st.integers(3, 10))
def test_holding_together_is_holms_correction(seed: int, rows: int, worlds: int) -> None:
    drawn = random.Random(seed)
    shifts = [drawn.choice([0.0, 0.5, 1.0, 2.0, 8.0, -8.0]) for _ in range(rows)]
    runs = [
        run(w, base=0.0, **{f"r{i}": drawn.gauss(shift, 1.0) for i, shift in enumerate(shifts)}) for w in range(worlds)
    ]
    comparisons = [Comparison(f"r{i}", "base") for i in range(rows)]
    results = {"runs": runs}
    holding, kept = surviving(results, "small", [*comparisons, Comparison("r0", "base", expect=None)])
    t_values, holds = [], []
    for comparison in comparisons:
        found, _ = paired(results, "small", comparison)
        t_values.append(found.mean * math.sqrt(found.count) / found.deviation)
        holds.append(verdict(comparison, found) == "holds")
    # p of each by bisection on the quantile, the other way round from the code
    p_values = []
    for t in map(abs, t_values):
        low, high = 0.5 + 1e-12, 1 - 1e-12
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if t_quantile(middle, worlds - 1) < t else (low, middle)
        p_values.append(2 * (1 - low))
    assert holding == sum(holds)
    assert {comparisons.index(c) for c in kept} == {i for i in holm(p_values) if holds[i]}
