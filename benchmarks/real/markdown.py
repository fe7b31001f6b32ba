"""The results as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wtal.ablation.statistics import Spread, spread

from .models import MODELS
from .own_code import DATA, OWN_CODE
from .results import Results

Runs = list[dict[str, Any]]


def page(results: Results) -> str:
    """A table for each part that was measured, and what to know when reading it."""
    machines = sorted({run["made_on"]["machine"] for run in results.runs})
    torch = sorted({run["made_on"]["torch"] for run in results.runs})
    lines = [
        "# Baselines",
        "",
        f"`python -m benchmarks.real`, {results.data}. Trained and evaluated on one thread of: {'; '.join(machines)}; "
        f"torch {', '.join(torch)}.",
        "mAP in percent at each tIoU, protocol seconds; mean and sample standard deviation over seeds. FN: share of "
        "the action's snippets on which the scores, scaled to [0, 1] per video and class, do not pass 0.5; FP: share "
        "of the rest on which they do. CPU: seconds of one run, training and inference.",
    ]
    for part in dict.fromkeys(run["part"] for run in results.runs):
        lines += _section(results, part, [run for run in results.runs if run["part"] == part])
    return "\n".join(lines) + "\n"


def _section(results: Results, part: str, runs: Runs) -> list[str]:
    lines = ["", f"## {_title(part)}", "", *_head([*runs[0]["per_tiou"]])]
    models = dict.fromkeys(run["model"] for run in runs)
    rows = [(spread([run["mean"] for run in own]), model, own) for model in models if (own := _of(runs, model))]
    lines += [_row(model, own) for _, model, own in sorted(rows, key=lambda row: row[0].mean)]
    if part != "test" or results.data != DATA:
        return lines
    lines += [_own_row(one.method, one.iterations, one.mean, one.per_tiou) for one in OWN_CODE]
    return [*lines, "", *_beside_own_code({model: mean for mean, model, _ in rows})]


def _title(part: str) -> str:
    if part == "test":
        return "Test videos"
    return f"Cross-validation inside the training videos, {part}: held-out detections evaluated together"


def _head(tiou: Sequence[str]) -> list[str]:
    cells = ["model", "seeds", *tiou, "mean", "FN", "FP", "CPU"]
    return ["| " + " | ".join(cells) + " |", "| --- |" + " ---: |" * (len(cells) - 1)]


def _row(model: str, runs: Runs) -> str:
    tiou = [_shown(spread([run["per_tiou"][name] for run in runs])) for name in runs[0]["per_tiou"]]
    rates = [_rate([run["snippets"][name] for run in runs]) for name in ("false_negative", "false_positive")]
    mean = f"**{_shown(spread([run['mean'] for run in runs]))}**"
    cpu = spread([run["cpu_seconds"] for run in runs]).mean
    seeds = ", ".join(str(run["seed"]) for run in runs)
    cells = [f"{model} ({MODELS[model.split(',')[0]].source})", seeds, *tiou, mean, *rates, f"{cpu:.0f}"]
    return "| " + " | ".join(cells) + " |"


def _own_row(method: str, iterations: int, mean: float, per_tiou: Sequence[float]) -> str:
    tiou = [f"{value:.1f}" for value in per_tiou] or [""] * 7
    cells = [f"{method}, its own code, {iterations} iterations", "one", *tiou, f"**{mean:.1f}**", "", "", ""]
    return "| " + " | ".join(cells) + " |"


def _beside_own_code(found: dict[str, Spread]) -> list[str]:
    """For each method with code of its own: which number stands for it."""
    lines = []
    for method in dict.fromkeys(one.method for one in OWN_CODE):
        own = max((one for one in OWN_CODE if one.method == method), key=lambda one: one.mean)
        ours = found.get(own.model or "")
        best = f"its own code's best is {own.mean:.1f} after {own.iterations} iterations, one seed"
        if ours is None:
            lines.append(f"* {method}: {best}.")
        elif ours.mean < own.mean:
            lines.append(
                f"* {method}: {best}; `{own.model}` here is {own.mean - ours.mean:.1f} lower, "
                f"so **{own.mean:.1f}** stands for {method}."
            )
        else:
            lines.append(
                f"* {method}: {best}; `{own.model}` here is {ours.mean - own.mean:.1f} higher, "
                f"so **{ours.mean:.1f}** stands for {method}."
            )
    return lines


def _of(runs: Runs, model: str) -> Runs:
    return [run for run in runs if run["model"] == model]


def _shown(value: Spread) -> str:
    return f"{value.mean:.1f}" if value.deviation is None else f"{value.mean:.1f} ± {value.deviation:.1f}"


def _rate(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{spread(known).mean:.2f}" if known else ""
