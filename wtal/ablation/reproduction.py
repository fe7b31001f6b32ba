"""The reproduction check: run a recorded world again and compare it with the recorded results."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from wtal.ablation.claims import claims_of
from wtal.ablation.results import Results, brief, row_spread
from wtal.ablation.variants import GROUPS, group_stages
from wtal.ablation.verdict import paired
from wtal.ablation.worlds import World, generator_of, run_group
from wtal.data.open import BENCHMARKS
from wtal.errors import WtalError
from wtal.settings.recipe import load_recipe

QUICK = ("random scores", "VLP zero-shot", "CBP after warm-up", "CBP as long, no teacher", "VLP after B", "CBP after F")


def check(results: Results, quick: bool) -> tuple[list[str], bool]:
    """Run the first recorded world of the first benchmark again and compare mAP and snippet rates, row by row.

    Two runs of one world on the same machine, with the same versions and one thread, are bitwise equal. On another
    machine rounding differs. Training amplifies the difference until it is as large as with another seed. So a value
    agrees if it differs by at most three recorded standard deviations over worlds, plus 0.1 mAP or 0.01 of a rate. A
    claim about the mAP of two rows agrees if the difference has the same sign as the recorded mean; it is not compared
    if the recorded interval includes zero.

    Args:
        results: the recorded results.
        quick: compare only the first rows, up to ``CBP after F``.

    Returns:
        One line per row and claim, and whether all agree.

    Raises:
        WtalError: the results were recorded with another generator, or lack a row that is to be compared.
    """
    run, now = results["runs"][0], dict[str, dict[str, Any]]()
    recipe = results["about"]["recipe"]
    if run["benchmark"] not in BENCHMARKS:
        raise WtalError(f"recorded on benchmark {run['benchmark']!r}, expected one of {', '.join(BENCHMARKS)}")
    if results["about"]["generator"] != (version := generator_of(run["benchmark"])):
        raise WtalError(
            f"recorded with generator version {results['about']['generator']}, but this wtal makes "
            f"{run['benchmark']!r} with version {version}"
        )
    if quick and (missing := [row for row in QUICK if row not in run["rows"]]):
        raise WtalError(f"no row {missing[0]!r} in the first world of the results, expected what --quick compares")
    world = World(run["benchmark"], run["world"], run["seed"], recipe)
    with tempfile.TemporaryDirectory(prefix="wtal-check-") as folder:
        for group in ("core",) if quick else GROUPS:
            own = [stage.row for stage in group_stages(group, load_recipe(recipe).config.schedule)]
            if wanted := [row for row in own if row in (QUICK if quick else run["rows"])]:
                now |= {row["name"]: brief(row) for row in run_group(Path(folder), world, group, tuple(wanted))}
    if unknown := [row for row in run["rows"] if row not in now and not quick]:
        raise WtalError(f"the results have a row {unknown[0]!r}, which this wtal does not make")
    compared = [_row(results, title, run["rows"][title], row) for title, row in now.items() if title in run["rows"]]
    compared += _claims(results, now)
    return [line for line, _ in compared], all(agrees for _, agrees in compared)


def _row(results: Results, title: str, before: dict[str, Any], now: dict[str, Any]) -> tuple[str, bool]:
    """The line of one row, and whether the row agrees."""
    values = {
        "mAP": (before["mAP"], now["mAP"], 0.1),
        **{name: (before["snippets"].get(name), value, 0.01) for name, value in now["snippets"].items()},
    }
    outside, same = [], True
    for name, (then, here, least) in values.items():
        same &= then == here
        spread = row_spread(results, results["runs"][0]["benchmark"], title, name)
        allowed = 3 * ((spread and spread.deviation) or 0.0) + least
        if (then is None) != (here is None) or (then is not None and abs(then - here) > allowed):
            outside.append(f"{name} {then} -> {here}, expected within {allowed:.3g}")
    outcome = "the same" if same else "NOT within the spread: " + "; ".join(outside) if outside else "within the spread"
    return f"{title:<40} recorded {before['mAP']:6.2f}  now {now['mAP']:6.2f}  {outcome}", not outside


def _claims(results: Results, now: dict[str, dict[str, Any]]) -> list[tuple[str, bool]]:
    """A line per claim about mAP, and whether its difference in this world has the sign of the recorded mean."""
    lines, benchmark = [], results["runs"][0]["benchmark"]
    for claim in claims_of(benchmark):
        recorded = paired(results, benchmark, claim)
        if claim.of != "mAP" or recorded is None or claim.row not in now or claim.to not in now:
            continue
        if abs(recorded[0].mean) <= (recorded[0].half_width or 0.0):  # no side was found, so one world may be on either
            continue
        difference = now[claim.row]["mAP"] - now[claim.to]["mAP"]
        agrees = difference * recorded[0].mean > 0
        outcome = "the same side" if agrees else "ANOTHER side of zero"
        name = f"{claim.row} minus {claim.to}"
        lines.append((f"{name}: recorded mean {recorded[0].mean:+.1f}  now {difference:+.1f}  {outcome}", agrees))
    return lines
