"""The result of an ablation as one figure; needs matplotlib."""

from __future__ import annotations

import io

from wtal.ablation.results import Results, row_spread, titles, values

COLOURS = {"ensemble": "tab:green", "VLP after": "tab:orange", "CBP": "tab:blue", "VLP": "tab:orange"}
"""Of rows by what is in their title, the first that fits; their names say which branch it is."""


def figure(results: Results, benchmark: str) -> bytes:
    """A PNG: on the left mAP of each row, a dot a world and a bar for the mean; on the right FN and FP rates."""
    from matplotlib.figure import Figure

    shown = [title for title in titles(results) if row_spread(results, benchmark, title) is not None]
    drawn = Figure(figsize=(11, 0.32 * len(shown) + 1.2), layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for place, title in enumerate(shown):
        dots = [*values(results, benchmark, title).values()]
        colour = next((shade for part, shade in COLOURS.items() if part in title), "tab:gray")
        left.barh(place, sum(dots) / len(dots), color=colour, alpha=0.35)
        left.plot(dots, [place] * len(dots), ".", color=colour)
        for of, mark, shade in (("false_negative", "o", "tab:purple"), ("false_positive", "s", "tab:red")):
            rate = row_spread(results, benchmark, title, of)
            if rate is not None:
                label = {"false_negative": "false negatives", "false_positive": "false positives"}[of]
                right.plot(rate.mean, place, mark, color=shade, label=label if place == 0 else None)
    left.set_yticks(range(len(shown)), shown)
    left.set_ylim(len(shown) - 0.4, -0.6)  # the first row on top
    left.set_xlabel("mAP (%), mean over tIoU .1 to .7; a dot a world")
    right.set_xlabel("share of snippets, mean over worlds")
    right.set_xlim(0, None)
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    drawn.savefig(image, format="png", dpi=110, metadata={"Software": None})
    return image.getvalue()
