"""Whether a world, run again, agrees with recorded results."""

from __future__ import annotations

import tempfile
from pathlib import Path

from wtal.ablation.results import Results, row_spread
from wtal.ablation.variants import GROUPS, group_stages
from wtal.ablation.worlds import World, run_group
from wtal.errors import WtalError
from wtal.recipe import load_recipe

QUICK = ("random scores", "VLP zero-shot", "CBP after warm-up", "CBP as long, no teacher", "VLP after B", "CBP after F")


def check(results: Results, quick: bool) -> tuple[list[str], bool]:
    """Run the first recorded world of the first benchmark again and compare its mAP, row by row.

    Two runs of one world on the same machine, with the same versions and one thread, give the same bits. Elsewhere
    rounding differs, and training carries that on as another seed would: then a row agrees when it is within two
    recorded standard deviations over worlds of its recorded value.

    Args:
        results: recorded ones.
        quick: only the first rows, up to ``CBP after F``.

    Returns:
        a line a row, and whether all agree.
    """
    if not results["runs"]:
        raise WtalError("the results hold no world to check")
    run, lines, agree = results["runs"][0], [], True
    recipe = results["about"]["recipe"]
    world = World(run["benchmark"], run["world"], run["seed"], recipe)
    with tempfile.TemporaryDirectory(prefix="wtal-check-") as folder:
        for group in ("core",) if quick else GROUPS:
            own = [stage.row for stage in group_stages(group, load_recipe(recipe).config.schedule)]
            wanted = [row for row in own if row in run["rows"] and (not quick or row in QUICK)]
            if not wanted:
                continue
            for row in run_group(Path(folder), world, group, tuple(wanted)):
                if row["name"] not in run["rows"]:
                    continue
                before, now = run["rows"][row["name"]]["mAP"], row["mean"]
                found = row_spread(results, world.benchmark, row["name"])
                allowed = 2 * (found.deviation or 0.0) if found else 0.0
                same, near = abs(now - before) < 1e-3, abs(now - before) <= allowed + 0.1
                agree &= near
                told = "the same" if same else f"within {allowed:.1f}" if near else f"NOT within {allowed:.1f}"
                lines.append(f"{row['name']:<40} recorded {before:6.2f}  now {now:6.2f}  {told}")
    return lines, agree
