"""The Markdown page and the figure of a comparison of recipes, generated from its results."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from wtal.ablation.comparison_statistics import (
    Comparison,
    Key,
    differences,
    of_row,
    over_pairs,
    over_parts,
    over_seeds,
    pooled_values,
    values,
)
from wtal.ablation.figure import FAULTS, Bar, draw
from wtal.ablation.markdown import interval, plus_minus
from wtal.ablation.statistics import Spread

COMPARED = {"mAP": "mAP", "false_negative": "FN rate", "false_positive": "FP rate"}
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:red", "tab:brown", "tab:pink", "tab:olive")


def comparison_page(results: Comparison, image: str | None) -> str:
    """The whole page as Markdown; ``image`` is the file name of the figure in the same folder, None for no figure."""
    parts = [
        f"# Recipes compared on {results['about']['data']}",
        "This page, its figure and the JSON beside it were written by `wtal-ablate --dataset`.",
        _about(results),
        _recipes(results),
        f"![mAP of each recipe, a dot a run; and the faults of snippets]({image})" if image else "",
        "## Paired differences",
        _pairs(results),
        "## Errors",
        _errors(results),
        _rows(results),
        _settings(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison_figure(results: Comparison) -> bytes:
    """A PNG with the mAP of each recipe (one dot per run, a bar for the mean), and FN and FP rates at the right."""
    bars = []
    for place, name in enumerate(_names(results)):
        if dots := [*values(results, name, of_row(None)).values()]:
            rates = {of: over_seeds(values(results, name, of_row(None, of))) for of in FAULTS}
            colour = COLOURS[place % len(COLOURS)]
            bars.append(Bar(name, dots, colour, {of: rate.mean if rate else None for of, rate in rates.items()}))
    tiou = results["about"]["tiou"]
    run = "a dot a seed and part" if results["about"]["folds"] else "a dot a seed"
    return draw(
        bars, f"mAP (%), mean over tIoU {tiou[0]:g} to {tiou[-1]:g}; {run}", "share of snippets, mean over runs"
    )


def _names(results: Comparison) -> list[str]:
    """The recipes with at least one run."""
    finished = {run["recipe"] for run in results["runs"]}
    return [name for name in results["about"]["recipes"] if name in finished]


def _about(results: Comparison) -> str:
    about = results["about"]
    training, test = about["videos"]
    where = f"{training} training and {test} test videos; trained on the former, measured on the latter"
    if folds := about["folds"]:
        measured = sum(run["videos"][1] for run in results["runs"] if run["seed"] == results["runs"][0]["seed"])
        left = training - measured // len(_names(results))
        where = f"the {training} training videos alone, in {folds} parts by a hash of their ids"
        where += "; each part is held out once and measured on, and its temporal annotation used for that alone"
        if left > 0 and len(results["runs"]) == about["asked"]:
            where += f"; {left} videos without temporal annotation are not measured on"
    versions = "; ".join(f"{name} {', '.join(numbers)}" for name, numbers in about["versions"].items())
    protocol = f"protocol '{about['protocol']}'" + (", ambiguous dropped" if about["ambiguous"] == "drop" else "")
    lines = [
        f"* {about['classes']} classes; {where}.",
        f"* Seeds {', '.join(map(str, about['seeds']))}; {about['threads']} CPU thread a run. The last step's model "
        "counts, of the branch that a recipe localizes with.",
        f"* mAP in percent, mean over tIoU {', '.join(f'{tiou:g}' for tiou in about['tiou'])}, {protocol}. "
        "FN: of the action snippets of labelled classes, the share not fired on (score below one half of its range in "
        "the video); FP: of all other snippets, the share fired on.",
        f"* Commit {', '.join(about['commits'])}. {versions}.",
        f"* Machine: {'; '.join(about['machines'])}.",
    ]
    if (there := len(results["runs"])) < about["asked"]:
        lines.append(f"* **{there} of the {about['asked']} runs asked for are finished; this is no final result.**")
    return "\n".join(lines)


def _recipes(results: Comparison) -> str:
    tious = [f"{tiou:g}" for tiou in results["about"]["tiou"]]
    shown = [tiou for tiou in ("0.3", "0.5", "0.7") if tiou in tious] or tious[:3]
    folds = results["about"]["folds"]
    over = " (each the mean over its parts). Pooled: the detections of all parts evaluated together" if folds else ""
    lines = [
        f"mAP: mean and standard deviation over seeds{over}.",
        "",
        f"| recipe | row | runs | mAP |{' pooled |' if folds else ''} {' | '.join(f'at {tiou}' for tiou in shown)} | "
        "FN / FP | CPU s | peak MB |",
        "| --- | --- | --- | --- |" + " --- |" * (len(shown) + bool(folds)) + " --- | --- | --- |",
    ]
    for name in _names(results):
        runs = [run for run in results["runs"] if run["recipe"] == name]
        at = (_mean([run["rows"][run["result"]]["per_tiou"][tiou] for run in runs]) for tiou in shown)
        together = f"| {_shown(over_seeds(pooled_values(results, name)))} " if folds else ""
        lines.append(
            f"| {name} | {runs[0]['result']} | {len(runs)} | {_shown(over_seeds(values(results, name, of_row(None))))} "
            f"{together}| {' | '.join(at)} | {_faults(results, name, None)} "
            f"| {_mean([run['cpu_seconds'] for run in runs], 0)} | {max(run['peak_memory_mb'] for run in runs):.0f} |"
        )
    return "\n".join(lines)


def _pairs(results: Comparison) -> str:
    names, folds = _names(results), results["about"]["folds"]
    if len(names) < 2:
        return "There is one recipe, so there is nothing to compare."
    by = "seed and part (pooled mAP by seed)" if folds else "seed"
    intervals = (len(COMPARED) + bool(folds)) * len(names) * (len(names) - 1) // 2
    lines = [
        f"Paired by {by}; mean and 95 % t-interval over the pairs. The interval says how sure the difference is for "
        + ("these videos, split and trained in another way" if folds else "these test videos, trained with other seeds")
        + f". Of the {intervals} intervals looked at, one in twenty misses the truth."
        + (" Over parts: of each part the mean over its seeds, which share its videos." if folds else ""),
        "",
        f"| difference | of | mean, 95 % interval |{' over parts |' if folds else ''} positive in | zero is outside |",
        "| --- | --- | --- | --- | --- |" + (" --- |" if folds else ""),
    ]
    for first, other in itertools.combinations(names, 2):
        for text, gaps, by_part in _gaps(results, other, first):
            if (pairs := over_pairs(gaps)) is None:
                continue
            digits = 3 if text.endswith("rate") else 1
            parts = over_parts(gaps) if by_part else None
            coarse = f" {interval(parts, digits) if parts else ''} |" if folds else ""
            lines.append(
                f"| {other} minus {first} | {text} | {interval(pairs, digits)} |{coarse} "
                f"{sum(value > 0 for value in gaps.values())} of {pairs.count} | {_outside(pairs)} |"
            )
    return "\n".join(lines)


def _gaps(results: Comparison, left: str, right: str) -> Iterator[tuple[str, dict[Key, float], bool]]:
    """What is compared of two recipes, its differences by run, and whether they differ by part."""
    for of, text in COMPARED.items():
        read = of_row(None, of)
        yield text, differences(values(results, left, read), values(results, right, read)), True
    yield "pooled mAP", differences(pooled_values(results, left), pooled_values(results, right)), False


def _outside(spread: Spread) -> str:
    """Whether an interval excludes zero."""
    if spread.half_width is None:
        return "one pair only"
    return "yes" if abs(spread.mean) > spread.half_width else "no"


def _errors(results: Comparison) -> str:
    runs = {name: [run["errors"] for run in results["runs"] if run["recipe"] == name] for name in _names(results)}
    first = next(iter(runs.values()))[0]
    gains = list(first["gains"])
    lengths = list(dict.fromkeys(key for analyses in runs.values() for one in analyses for key in one["missed"]))
    lines = [
        f"At tIoU {first['alpha']:g}, as in the report: points of mAP that the removal of a kind of error would "
        "bring; of the first G detections of each class (G its number of instances) the share that is right; "
        "and the share of instances that no detection was matched to, in all and by length.",
        "",
        f"| recipe | {' | '.join(f'{kind} errors' for kind in gains)} | right in first G |",
        "| --- |" + " --- |" * (len(gains) + 1),
    ]
    for name, analyses in runs.items():
        cells = [_mean([one["gains"][kind] for one in analyses]) for kind in gains]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {_mean([one['first']['true positive'] for one in analyses], 2)} |"
        )
    lines += ["", f"| missed | {' | '.join(lengths)} |", "| --- |" + " --- |" * len(lengths)]
    for name, analyses in runs.items():
        cells = [_mean([one["missed"][key] for one in analyses if key in one["missed"]], 2) for key in lengths]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rows(results: Comparison) -> str:
    """For recipes with several rows: all rows, each compared with the recipe's result row."""
    lines = []
    for name in _names(results):
        runs = [run for run in results["runs"] if run["recipe"] == name]
        titles = list(dict.fromkeys(title for run in runs for title in run["rows"]))
        final = values(results, name, of_row(None))
        for title in titles if len(titles) > 1 else ():
            scores = values(results, name, of_row(title))
            gap = over_pairs(differences(final, scores))
            change = "" if title == runs[0]["result"] or gap is None else interval(gap, 1)
            mean = _shown(over_seeds(scores))
            lines.append(f"| {name} | {title} | {mean} | {_faults(results, name, title)} | {change} |")
    if not lines:
        return ""
    head = ("| recipe | row | mAP | FN / FP | the row that counts minus this one |", "|" + " --- |" * 5)
    return "\n".join(("## All rows", "", *head, *lines))


def _settings(results: Comparison) -> str:
    """The settings in which the recipes differ."""
    recipes: dict[str, dict[str, dict[str, Any]]] = results["about"]["recipes"]
    lines = []
    for section, keys in next(iter(recipes.values())).items():
        for key in keys:
            row = [recipes[name][section].get(key) for name in recipes]
            if any(value != row[0] for value in row):
                lines.append(f"| {section}.{key} | {' | '.join(map(_plain, row))} |")
    if not lines:
        return ""
    head = (f"| setting | {' | '.join(recipes)} |", "| --- |" + " --- |" * len(recipes))
    return "\n".join(("## In what the recipes differ", "", *head, *lines))


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _faults(results: Comparison, name: str, title: str | None) -> str:
    rates = (over_seeds(values(results, name, of_row(title, of))) for of in FAULTS)
    return " / ".join("-" if one is None else f"{one.mean:.2f}" for one in rates)


def _shown(spread: Spread | None) -> str:
    return "-" if spread is None else plus_minus(spread)


def _mean(numbers: Sequence[float], digits: int = 1) -> str:
    return f"{sum(numbers) / len(numbers):.{digits}f}" if numbers else "-"
