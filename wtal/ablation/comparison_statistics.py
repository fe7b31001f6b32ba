"""Statistics of a comparison of recipes: over seeds, and paired by seed and part."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from wtal.ablation.statistics import Spread, spread

Comparison = Mapping[str, Any]
"""The results from :func:`wtal.ablation.compare_recipes.collect`."""

Key = tuple[int, str | None]
"""Seed and part."""


def of_row(title: str | None, of: str = "mAP") -> Callable[[Mapping[str, Any]], float | None]:
    """A function that reads the mAP, or a snippet rate, of one row of a run.

    Args:
        title: title of the row; None: the run's result row.
        of: ``mAP``, or the name of a snippet rate.
    """

    def read(run: Mapping[str, Any]) -> float | None:
        row = run["rows"].get(title or run["result"])
        if row is None:
            return None
        value: float | None = row["mAP"] if of == "mAP" else row["snippets"].get(of)
        return value

    return read


def values(results: Comparison, recipe: str, read: Callable[[Mapping[str, Any]], float | None]) -> dict[Key, float]:
    """The value that ``read`` returns for each run of a recipe, by seed and part. Runs without it are left out."""
    by_run = {(run["seed"], run["fold"]): read(run) for run in results["runs"] if run["recipe"] == recipe}
    return {key: value for key, value in by_run.items() if value is not None}


def pooled_values(results: Comparison, recipe: str) -> dict[Key, float]:
    """The mAP over all parts together, for each seed of a recipe; empty without parts."""
    found = (one for one in results["pooled"] if one["recipe"] == recipe)
    return {(one["seed"], None): one["mAP"] for one in found}


def over_seeds(by_run: Mapping[Key, float]) -> Spread | None:
    """Mean and standard deviation over seeds; the value of a seed is the mean over its parts. None without runs."""
    return _over(by_run, 0)


def differences(left: Mapping[Key, float], right: Mapping[Key, float]) -> dict[Key, float]:
    """Left minus right, for each seed and part that both have."""
    return {key: left[key] - right[key] for key in left if key in right}


def over_pairs(by_run: Mapping[Key, float]) -> Spread | None:
    """Mean and standard deviation over all pairs of seed and part; None without runs."""
    return spread([*by_run.values()]) if by_run else None


def over_parts(by_run: Mapping[Key, float]) -> Spread | None:
    """Mean and standard deviation over parts; None without runs.

    The value of a part is the mean over its seeds: they share the part's videos, so they are not independent samples.
    """
    return _over(by_run, 1)


def _over(by_run: Mapping[Key, float], place: int) -> Spread | None:
    if not by_run:
        return None
    order = sorted(by_run, key=lambda key: str(key[place]))
    groups = (list(keys) for _, keys in itertools.groupby(order, key=lambda key: key[place]))
    return spread([sum(by_run[key] for key in keys) / len(keys) for keys in groups])
