"""The Markdown page of an ablation, generated from its results."""

from __future__ import annotations

from collections.abc import Sequence

from wtal.ablation.claims import FURTHER, Comparison, claims_of, violation
from wtal.ablation.results import Results, benchmarks, row_spread, titles, values
from wtal.ablation.statistics import Spread
from wtal.ablation.verdict import NO_GAIN, paired, surviving, verdict

RATES = {"false_negative": "FN", "false_positive": "FP", "core": "core", "non_core": "non-core", "context": "context"}
LABELS = ("foreground precision", "foreground recall", "background precision", "background recall")
QUANTITY = {
    "mAP": "mAP",
    "false_negative": "FN rate",
    "false_positive": "FP rate",
    "non_core": "non-core firing",
    "context": "context firing",
}


def page(results: Results, figure: str | None) -> str:
    """The whole page as Markdown; ``figure`` is the file name of the image in the same folder, None for no image."""
    shown = benchmarks(results)
    main = shown[0]
    parts = [
        "# What each step buys",
        "This page, its figure and the JSON beside it were written by `wtal-ablate`. The worlds are generated: **this "
        "is not THUMOS14, and the numbers say nothing about it.** What counts is the difference between rows.",
        _about(results),
        f"## Benchmark {main}: does it hold?",
        VERDICTS,
        _counted(results, main),
        _comparisons(results, main, claims_of(main)),
        _together(results, main, claims_of(main)),
    ]
    if figure:
        parts.append(f"![mAP of each row, a dot a world; and the faults of each branch]({figure})")
    parts += [f"## Benchmark {main}: all rows", _rows(results, main)]
    if labels := _pseudo_labels(results, main):
        parts += ["### Pseudo-labels", labels]
    if further := _comparisons(results, main, FURTHER):
        parts += ["### Further differences", further, _together(results, main, FURTHER)]
    if len(shown) > 1:
        parts += ["## Difficulties and negative controls", _others(shown), _matrix(results, shown)]
        for benchmark in shown[1:]:
            compared = _comparisons(results, benchmark, claims_of(benchmark))
            parts += [f"### {benchmark}", compared, _faults(results, benchmark)]
    return "\n\n".join(part for part in parts if part) + "\n"


VERDICTS = (
    "`holds`: the whole 95 % interval lies on the expected side of zero; `the opposite`: on the other; `not shown`: "
    f"zero is inside. `no gain` holds where the interval ends below {NO_GAIN:g} mAP. Without an expectation a "
    "difference is only reported."
)


def _others(shown: Sequence[str]) -> str:
    """What the benchmarks of a page are."""
    sentences = ["mAP."]
    if {"easy", "hard"} & {*shown}:
        sentences.append("`easy` and `hard` have 0.75 and 1.25 times the noise, offset and drift.")
    if violated := [f"`{name}` ({how})" for name in shown if (how := violation(name))]:
        sentences.append(
            f"The premise is meant to be false in {', '.join(violated)}. There, VLP's labels are to bring nothing "
            "beyond CBP's own (`minus CBP self-training`); that pseudo-labels as such help is no sign of a fault."
        )
    return " ".join(sentences)


def _about(results: Results) -> str:
    about = results["about"]
    main = benchmarks(results)[0]
    versions = "; ".join(f"{name} {', '.join(listed)}" for name, listed in about["versions"].items())
    worlds = {
        name: sorted({run["world"] for run in results["runs"] if run["benchmark"] == name})
        for name in benchmarks(results)
    }
    seeds = sorted({run["seed"] for run in results["runs"]})
    training, test = about["videos"][main]
    return "\n".join(
        (
            f"* Generator version {about['generator']}, recipe `{about['recipe']}`, "
            f"{about['threads']} CPU thread a world, seed {', '.join(map(str, seeds))}.",
            *(
                f"* Worlds of {name}: {', '.join(map(str, numbers))}{_unfinished(numbers, about['asked'][name])}"
                for name, numbers in worlds.items()
            ),
            f"* Commit {', '.join(about['commits'])}. {versions}.",
            f"* Machine: {'; '.join(about['machines'])}.",
            f"* {training} training and {test} test videos a world. mAP in percent, mean over tIoU "
            f"{', '.join(f'{tiou:g}' for tiou in about['tiou'])}, protocol '{about['protocol']}'. The last step's "
            "model counts; nothing was chosen on these worlds' ground truth.",
            "* FN: of the action snippets of labelled classes, the share that a branch does not fire on (score below "
            "one half of its range in the video); FP: of all other snippets, the share that it fires on. Core, "
            "non-core (onset, offset) and context (of any class): the share fired on.",
        )
    )


def _unfinished(there: Sequence[int], asked: Sequence[int]) -> str:
    if not set(asked) - set(there):
        return "."
    share = f"{len(there)} of the {len(asked)} worlds asked for"
    return f". **{share}: the others have not been run yet; this is no final result.**"


def _counted(results: Results, benchmark: str) -> str:
    """A sentence with the number of worlds that the rows have."""
    counts = sorted({len(values(results, benchmark, title)) for title in titles(results)} - {0})
    if len(counts) == 1:
        return f"All rows are over {counts[0]} worlds."
    return f"Rows are over {counts[0]} to {counts[-1]} worlds, as their column n says."


def _comparisons(results: Results, benchmark: str, comparisons: Sequence[Comparison]) -> str:
    lines = []
    for comparison in comparisons:
        pair = paired(results, benchmark, comparison)
        if pair is None:
            continue
        difference, positive = pair
        digits = 1 if comparison.of == "mAP" else 3
        lines.append(
            f"| {comparison.row} minus {comparison.to} | {QUANTITY[comparison.of]} | {interval(difference, digits)} "
            f"| {positive} of {difference.count} | {comparison.expect or ''} | {verdict(comparison, difference)} |"
        )
    if not lines:
        return ""
    head = ("| paired difference | of | mean, 95 % interval | positive in | expected | |", "|" + " --- |" * 6)
    return "\n".join((*head, *lines))


def _together(results: Results, benchmark: str, comparisons: Sequence[Comparison]) -> str:
    """A sentence with the comparisons that survive the correction for multiple comparisons."""
    holding, kept = surviving(results, benchmark, comparisons)
    if not holding:
        return ""
    lost = [
        c
        for c in comparisons
        if c not in kept
        and c.expect in ("more", "less")
        and (pair := paired(results, benchmark, c)) is not None
        and verdict(c, pair[0]) == "holds"
    ]
    names = "; ".join(f"{c.row} minus {c.to} ({QUANTITY[c.of]})" for c in lost)
    return (
        f"Of the {holding} in this table that hold as more or less, {len(kept)} also hold together, at 5 % for all of "
        f"them (Holm's correction)." + (f" Not: {names}." if names else "")
    )


def _faults(results: Results, benchmark: str) -> str:
    """A table of the snippet rates of the branches, which shows the opposite faults of the branches."""
    rows = ("VLP zero-shot", "CBP after warm-up", "VLP after B", "CBP after F", "ensemble after F")
    lines = []
    for title in rows:
        rates = [row_spread(results, benchmark, title, name) for name in RATES]
        if all(rate is not None for rate in rates):
            lines.append(f"| {title} | " + " | ".join(f"{rate.mean:.2f}" for rate in rates if rate is not None) + " |")
    return (
        "\n".join((f"| | {' | '.join(RATES.values())} |", "| --- |" + " --- |" * len(RATES), *lines)) if lines else ""
    )


def _rows(results: Results, benchmark: str) -> str:
    tious = [f"{tiou:g}" for tiou in results["about"]["tiou"]]
    shown = [tiou for tiou in ("0.3", "0.5", "0.7") if tiou in tious] or tious[:3]
    lines = [
        f"| | n | mAP | {' | '.join(f'at {tiou}' for tiou in shown)} | FN / FP | core / non-core / context |",
        "| --- | --- | --- |" + " --- |" * len(shown) + " --- | --- |",
    ]
    for title in titles(results):
        spread = row_spread(results, benchmark, title)
        if spread is None:
            continue
        rates = {name: row_spread(results, benchmark, title, name) for name in RATES}
        cells = {name: "-" if rate is None else f"{rate.mean:.2f}" for name, rate in rates.items()}
        rows = [run["rows"][title] for run in results["runs"] if run["benchmark"] == benchmark and title in run["rows"]]
        at = " | ".join(f"{sum(row['per_tiou'][tiou] for row in rows) / len(rows):.1f}" for tiou in shown)
        lines.append(
            f"| {title} | {spread.count} | {plus_minus(spread)} | {at} | {cells['false_negative']} / "
            f"{cells['false_positive']} | {cells['core']} / {cells['non_core']} / {cells['context']} |"
        )
    return "\n".join(lines)


def _pseudo_labels(results: Results, benchmark: str) -> str:
    lines = []
    for title in titles(results):
        rates = [row_spread(results, benchmark, title, name) for name in LABELS]
        if any(rate is not None for rate in rates):
            lines.append(
                f"| {title} | " + " | ".join("-" if rate is None else f"{rate.mean:.2f}" for rate in rates) + " |"
            )
    if not lines:
        return ""
    return "\n".join((f"| the labels behind | {' | '.join(LABELS)} |", "| --- | --- | --- | --- | --- |", *lines))


def _matrix(results: Results, names: Sequence[str]) -> str:
    numbers = [max(len(values(results, benchmark, title)) for title in titles(results)) for benchmark in names]
    heads = [f"{benchmark} (n = {count})" for benchmark, count in zip(names, numbers, strict=True)]
    lines = [f"| | {' | '.join(heads)} |", "| --- |" + " --- |" * len(names)]
    for title in titles(results):
        cells = [row_spread(results, benchmark, title) for benchmark in names]
        if sum(cell is not None for cell in cells[1:]):
            lines.append(f"| {title} | " + " | ".join("-" if c is None else plus_minus(c) for c in cells) + " |")
    return "\n".join(lines)


def plus_minus(spread: Spread, digits: int = 1) -> str:
    """Mean and standard deviation as text; only the mean if there is a single value."""
    return f"{spread.mean:.{digits}f}" + ("" if spread.deviation is None else f" ± {spread.deviation:.{digits}f}")


def interval(spread: Spread, digits: int) -> str:
    """A difference and its 95 % interval as text; only the difference if there is a single value."""
    text = f"{spread.mean:+.{digits}f}"
    if spread.half_width is None:
        return text
    low, high = spread.mean - spread.half_width, spread.mean + spread.half_width
    return f"{text} [{low:+.{digits}f}, {high:+.{digits}f}]"
