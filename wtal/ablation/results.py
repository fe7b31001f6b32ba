"""The result of an ablation as JSON: every row of every world, and on what it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wtal.ablation.statistics import Spread, spread
from wtal.ablation.variants import GROUPS
from wtal.ablation.worlds import AND, World, recorded
from wtal.errors import WtalError
from wtal.platform.fields import load_json, shown, take
from wtal.settings.config import EvaluateConfig
from wtal.settings.recipe import load_recipe

FORMAT = 2

Results = dict[str, Any]
"""``format``; ``about``: commits, versions, machines, generator version, recipe, which worlds were asked for;
``runs``: a list of ``benchmark``, ``world``, ``seed`` and ``rows``, title -> ``mAP``, ``per_tiou``, ``snippets`` and
perhaps ``pseudo_labels``."""


def collect(root: Path, worlds: Sequence[World]) -> Results:
    """What the runs under ``root`` have so far."""
    runs, made = [], []
    recipe, measured = "", EvaluateConfig()
    for world in worlds:
        rows: dict[str, Any] = {}
        for group in GROUPS:
            if (record := recorded(root, world, group)) is not None:
                made.append(record[1])
                rows |= {row["name"]: brief(row) for row in record[0]}
        if rows:
            runs.append({"benchmark": world.benchmark, "world": world.number, "seed": world.seed, "rows": rows})
            recipe, measured = world.recipe, load_recipe(world.recipe).config.evaluate
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
            "protocol": measured.protocol,
            "tiou": list(measured.tiou),
            "videos": {name: _videos(name) for name in _names(worlds)},
            "asked": {name: sorted({w.number for w in worlds if w.benchmark == name}) for name in _names(worlds)},
        },
        "runs": runs,
    }


def _names(worlds: Sequence[World]) -> list[str]:
    return list(dict.fromkeys(world.benchmark for world in worlds))


def _videos(benchmark: str) -> list[int]:
    """For training and for testing."""
    from wtal.data.open import BENCHMARKS

    size = BENCHMARKS[benchmark].size
    return [size.training_videos, size.test_videos]


ABOUT = {
    "commits": list,
    "versions": dict,
    "machines": list,
    "generator": str,
    "recipe": str,
    "threads": int,
    "protocol": str,
    "tiou": list,
    "videos": dict,
    "asked": dict,
}


def read_results(path: Path) -> Results:
    """Read what :func:`collect` made.

    Raises:
        WtalError: no such file, or another content.
    """
    results: Results = load_json(path, "results of wtal-ablate")
    try:
        if (got := take(results, "format", "results of wtal-ablate")) != FORMAT:
            raise ValueError(f"format {shown(got)}, but this wtal reads format {FORMAT}")
        about = take(results, "about", "what the results were made by")
        for name, kind in ABOUT.items():
            if not isinstance(take(about, name, "a fact of the results"), kind):
                raise ValueError(f"{name} is {shown(about[name])}")
        runs = take(results, "runs", "a list of worlds")
        if not isinstance(runs, list) or not runs:
            raise ValueError("no world in it")
        for run in runs:
            for name in ("benchmark", "world", "seed"):
                take(run, name, "a world")
            for title, row in take(run, "rows", "the rows of a world").items():
                for part in ("mAP", "per_tiou", "snippets"):
                    take(row, part, f"the row {title!r}")
    except (ValueError, AttributeError) as error:
        raise WtalError(f"{path}: not readable as results of wtal-ablate ({error})") from None
    return results


def benchmarks(results: Results) -> list[str]:
    """The benchmarks in it, in order."""
    return list(dict.fromkeys(run["benchmark"] for run in results["runs"]))


def titles(results: Results) -> list[str]:
    """All row titles, in order."""
    return list(dict.fromkeys(title for run in results["runs"] for title in run["rows"]))


def values(results: Results, benchmark: str, title: str, of: str = "mAP") -> dict[int, float]:
    """World -> mAP or a snippet rate or a pseudo-label rate, of the worlds that have it.

    Several seeds of one world are averaged: they share its data, so they are no worlds more.
    """
    by_world: dict[int, list[float]] = {}
    for run in results["runs"]:
        row = run["rows"].get(title)
        if run["benchmark"] == benchmark and row is not None:
            value = row["mAP"] if of == "mAP" else {**row["snippets"], **row.get("pseudo_labels", {})}.get(of)
            if value is not None:
                by_world.setdefault(run["world"], []).append(value)
    return {world: sum(each) / len(each) for world, each in by_world.items()}


def row_spread(results: Results, benchmark: str, title: str, of: str = "mAP") -> Spread | None:
    """Over all worlds that have the row; None where none has."""
    by_world = values(results, benchmark, title, of)
    return spread([*by_world.values()]) if by_world else None


def brief(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the run without what all rows share."""
    kept: dict[str, Any] = {"mAP": round(row["mean"], 4)}
    for part in ("per_tiou", "snippets", "pseudo_labels"):
        if part in row:
            kept[part] = {name: None if v is None else round(v, 4) for name, v in row[part].items()}
    return kept
