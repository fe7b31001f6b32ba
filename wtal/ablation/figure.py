"""The figure of an ablation or of a comparison of recipes; needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from wtal.ablation.results import Results, row_spread, titles, values

COLOURS = {"ensemble": "tab:green", "VLP after": "tab:orange", "CBP": "tab:blue", "VLP": "tab:orange"}
"""The colour of a row: that of the first key which occurs in the row's title. Each branch has its own colour."""

FAULTS = {
    "false_negative": ("false negatives", "o", "tab:purple"),
    "false_positive": ("false positives", "s", "tab:red"),
}
"""Label, marker and colour of each snippet rate."""


@dataclass(frozen=True)
class Bar:
    """One line of the figure.

    Attributes:
        title: the text at its left.
        dots: mAP of each run or world.
        colour: colour of bar and dots.
        rates: snippet rates by the keys of :data:`FAULTS`; None: not measured.
    """

    title: str
    dots: list[float]
    colour: str
    rates: dict[str, float | None]


def figure(results: Results, benchmark: str) -> bytes:
    """A PNG: at the left the mAP of each row (one dot per world, a bar for the mean), at the right FN and FP rates."""
    bars = []
    for title in titles(results):
        if dots := [*values(results, benchmark, title).values()]:
            colour = next((shade for part, shade in COLOURS.items() if part in title), "tab:gray")
            rates = {of: row_spread(results, benchmark, title, of) for of in FAULTS}
            bars.append(Bar(title, dots, colour, {of: rate.mean if rate else None for of, rate in rates.items()}))
    tiou = results["about"]["tiou"]
    below = f"mAP (%), mean over tIoU {tiou[0]:g} to {tiou[-1]:g}; a dot a world"
    return draw(bars, below, "share of snippets, mean over worlds")


def draw(shown: Sequence[Bar], below: str, below_rates: str) -> bytes:
    """The figure as a PNG, with the first bar on top.

    Args:
        shown: the lines of the figure.
        below: label of the left x axis.
        below_rates: label of the right x axis.
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 0.32 * len(shown) + 1.2), layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for place, bar in enumerate(shown):
        left.barh(place, sum(bar.dots) / len(bar.dots), color=bar.colour, alpha=0.35)
        left.plot(bar.dots, [place] * len(bar.dots), ".", color=bar.colour)
        for of, (label, mark, shade) in FAULTS.items():
            rate = bar.rates.get(of)
            if rate is not None:
                right.plot(rate, place, mark, color=shade, label=label if place == 0 else None)
    left.set_yticks(range(len(shown)), [bar.title for bar in shown])
    left.set_ylim(len(shown) - 0.4, -0.6)  # the first row on top
    left.set_xlabel(below)
    right.set_xlabel(below_rates)
    right.set_xlim(0, None)
    right.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False
    )  # above the axes, where it covers no marker
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    drawn.savefig(image, format="png", dpi=110, metadata={"Software": None})
    return image.getvalue()
