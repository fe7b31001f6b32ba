"""The result of an ablation as JSON: every row of every world, and on what it was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wtal.ablation.statistics import Spread, spread
from wtal.ablation.variants import GROUPS, Comparison
from wtal.ablation.worlds import AND, World, recorded
from wtal.errors import WtalError

FORMAT = 2

Results = dict[str, Any]
"""``format``; ``about``: commits, versions, machines, generator version, recipe, which worlds were asked for;
``runs``: a list of ``benchmark``, ``world``, ``seed`` and ``rows``, title -> ``mAP``, ``per_tiou``, ``snippets`` and
perhaps ``pseudo_labels``."""


def collect(root: Path, worlds: Sequence[World]) -> Results:
    """What the runs under ``root`` have so far."""
    runs, made = [], []
    recipe = ""
    for world in worlds:
        rows: dict[str, Any] = {}
        for group in GROUPS:
            if (found := recorded(root, world, group)) is not None:
                made.append(found[1])
                rows |= {row["name"]: _brief(row) for row in found[0]}
        if rows:
            runs.append({"benchmark": world.benchmark, "world": world.number, "seed": world.seed, "rows": rows})
            recipe = world.recipe
    every = {
        name: sorted({one for versions in made for one in str(versions.get(name)).split(AND)})
        for name in (made[0] if made else ())
    }
    own = {name: every.pop(name, []) for name in ("commit", "machine", "generator")}
    if len(own["generator"]) > 1:
        raise WtalError(f"{root}: worlds of generator versions {' and '.join(own['generator'])}: choose another --runs")
    return {
        "format": FORMAT,
        "about": {
            "commits": own["commit"],
            "versions": every,
            "machines": own["machine"],
            "generator": "".join(own["generator"]),
            "recipe": recipe,
            "threads": 1,
            "asked": {name: sorted({w.number for w in worlds if w.benchmark == name}) for name in _names(worlds)},
        },
        "runs": runs,
    }


def _names(worlds: Sequence[World]) -> list[str]:
    return list(dict.fromkeys(world.benchmark for world in worlds))


def read_results(path: Path) -> Results:
    """Read what :func:`collect` made.

    Raises:
        WtalError: no such file, or another content.
    """
    try:
        results: Results = json.loads(path.read_text(encoding="utf-8"))
        found = results["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WtalError(f"{path}: not readable as results of wtal-ablate ({error})") from None
    if found != FORMAT:
        raise WtalError(f"{path}: format {found}, but this wtal reads format {FORMAT}")
    return results


def benchmarks(results: Results) -> list[str]:
    """The benchmarks in it, in order."""
    return list(dict.fromkeys(run["benchmark"] for run in results["runs"]))


def titles(results: Results) -> list[str]:
    """All row titles, in order."""
    return list(dict.fromkeys(title for run in results["runs"] for title in run["rows"]))


def values(results: Results, benchmark: str, title: str, of: str = "mAP") -> dict[tuple[int, int], float]:
    """(world, seed) -> mAP or a snippet rate or a pseudo-label rate, of the worlds that have it."""
    found = {}
    for run in results["runs"]:
        row = run["rows"].get(title)
        if run["benchmark"] == benchmark and row is not None:
            value = row["mAP"] if of == "mAP" else {**row["snippets"], **row.get("pseudo_labels", {})}.get(of)
            if value is not None:
                found[run["world"], run["seed"]] = value
    return found


def row_spread(results: Results, benchmark: str, title: str, of: str = "mAP") -> Spread | None:
    """Over all worlds that have the row; None where none has."""
    found = values(results, benchmark, title, of)
    return spread([*found.values()]) if found else None


def paired(results: Results, benchmark: str, comparison: Comparison) -> tuple[Spread, int] | None:
    """The difference over the worlds that have both rows, and in how many it is positive; None where none has."""
    left = values(results, benchmark, comparison.row, comparison.of)
    right = values(results, benchmark, comparison.to, comparison.of)
    differences = [left[key] - right[key] for key in left if key in right]
    return (spread(differences), sum(d > 0 for d in differences)) if differences else None


def verdict(comparison: Comparison, difference: Spread) -> str:
    """``holds``, ``does not hold``, or ``too few worlds``."""
    if difference.half_width is None:
        return "too few worlds"
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    holds = {"more": low > 0, "less": high < 0, "no gain": low <= 0}[comparison.expect]
    return "holds" if holds else "does not hold"


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the run without what all rows share."""
    kept: dict[str, Any] = {"mAP": round(row["mean"], 4)}
    for part in ("per_tiou", "snippets", "pseudo_labels"):
        if part in row:
            kept[part] = {name: None if v is None else round(v, 4) for name, v in row[part].items()}
    return kept
