"""Scaling plots of the benchmarks whose groups are named ``scaling: <what>, <letter> = <number>``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_GROUP = re.compile(r"scaling: (?P<what>.+), (?P<axis>\w+) = (?P<size>\d+)$")


def write_scaling_plots(benchmarks: Iterable[Any], folder: Path, caption: str) -> list[Path]:
    """Draw median times against sizes, a line a side, and return the files written: one ``<what>.png`` each.

    Args:
        benchmarks: pytest-benchmark's, after the run.
        folder: made if it is not there.
        caption: the machine, for the foot of each plot.
    """
    from matplotlib.figure import Figure

    lines: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = {}
    for bench in benchmarks:
        if bench.group and (found := _GROUP.match(bench.group)) and bench.stats.rounds:
            sides = lines.setdefault((found["what"], found["axis"]), {})
            sides.setdefault(bench.extra_info["side"], []).append((int(found["size"]), 1e3 * bench.stats.median))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for (what, axis), sides in lines.items():
        drawn = Figure(figsize=(6, 4), layout="constrained")
        axes = drawn.subplots()
        for side, points in sides.items():
            axes.loglog(*zip(*sorted(points), strict=True), "o-", label=side)
        axes.set_xlabel(axis)
        axes.set_ylabel("ms, median, one thread")
        axes.set_title(what)
        axes.grid(alpha=0.3, which="both")
        axes.legend()
        drawn.supxlabel(caption, fontsize=7)
        written.append(folder / f"scaling-{what}.png")
        drawn.savefig(written[-1], dpi=110, metadata={"Software": None})
    return written
