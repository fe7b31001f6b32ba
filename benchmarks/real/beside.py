"""The recipe of a comparison beside the baselines, with intervals.

    python -m benchmarks.real.beside benchmarks/results/real-cbp.json benchmarks/results/real-baselines.json

The first file is one of ``wtal-ablate --dataset``, the second one of ``benchmarks.real``, both on the test videos.
Prints a Markdown table: mAP of each model, and the recipe's minus it with Welch's 95 % interval. Welch's, because the
seeds of the two have nothing in common, and numbers and deviations may differ. It holds for other seeds, not for other
videos.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

from wtal.ablation.statistics import spread, t_quantile


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """The difference of the means, and half the width of its 95 % interval (Welch 1947).

    The degrees of freedom are rounded down, which makes the interval wider, never narrower.

    Raises:
        ValueError: either has fewer than two values, or all values of both are equal.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"{len(first)} and {len(second)} values, expected at least two of each")
    ours, theirs = spread(first), spread(second)
    a, b = ((own.deviation or 0.0) ** 2 / own.count for own in (ours, theirs))
    if a + b == 0:
        raise ValueError("no value differs from another, expected some variance")
    freedom = (a + b) ** 2 / (a**2 / (ours.count - 1) + b**2 / (theirs.count - 1))
    return ours.mean - theirs.mean, t_quantile(0.975, math.floor(freedom)) * math.sqrt(a + b)


def table(recipe: str, ours: Sequence[float], theirs: dict[str, list[float]]) -> str:
    """A row for each model, the worst first, and one for the recipe."""
    lines = ["| | seeds | mAP | recipe minus it |", "| --- | ---: | --- | --- |"]
    for model, values in sorted(theirs.items(), key=lambda item: spread(item[1]).mean):
        difference, half = welch(ours, values)
        interval = f"{difference:+.1f} [{difference - half:+.1f}, {difference + half:+.1f}]"
        lines.append(f"| {model} | {len(values)} | {_brief(values)} | {interval} |")
    return "\n".join([*lines, f"| **{recipe}** | {len(ours)} | **{_brief(ours)}** | |"])


def _brief(values: Sequence[float]) -> str:
    found = spread(values)
    return f"{found.mean:.1f} ± {found.deviation:.1f}" if found.deviation is not None else f"{found.mean:.1f}"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="of wtal-ablate --dataset")
    parser.add_argument("baselines", type=Path, help="of benchmarks.real")
    options = parser.parse_args()
    compared = json.loads(options.comparison.read_text())["runs"]
    recipes = {run["recipe"] for run in compared}
    if len(recipes) != 1:
        parser.error(f"{options.comparison}: recipes {', '.join(sorted(recipes))}, expected one")
    baselines: dict[str, list[float]] = {}
    for run in json.loads(options.baselines.read_text())["runs"]:
        if run["part"] == "test":
            baselines.setdefault(run["model"], []).append(run["mean"])
    ours = [run["rows"][run["result"]]["mAP"] for run in compared if run["fold"] is None]
    try:
        print(table(recipes.pop(), ours, baselines))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
