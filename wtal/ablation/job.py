"""The job behind ``wtal-ablate``: train all variants in all worlds, and write the results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from wtal.ablation.figure import figure
from wtal.ablation.markdown import page
from wtal.ablation.process_pool import finished, pool
from wtal.ablation.results import Results, benchmarks, collect
from wtal.ablation.variants import GROUPS
from wtal.ablation.worlds import World, run_group
from wtal.errors import WtalError
from wtal.platform.as_json import dumps
from wtal.platform.files import check_writable, write_atomically


def ablate(
    numbers: Sequence[int],
    names: Sequence[str],
    groups: Sequence[str],
    seed: int,
    recipe: str,
    *,
    runs: Path,
    out: Path,
    processes: int,
) -> int:
    """Train the variants that are not finished, then write the results; returns the exit code.

    Args:
        numbers: numbers of the worlds, which are the seeds of their data.
        names: benchmarks, keys of :data:`wtal.data.open.BENCHMARKS`; the first is the main benchmark of the page.
        groups: groups of variants, from :data:`wtal.ablation.variants.GROUPS`; ``core`` is always added.
        seed: seed of training.
        recipe: name or path of the recipe.
        runs: folder of the runs.
        out: path of the results without the extension.
        processes: the number of worlds at the same time; 0 trains nothing.

    Raises:
        WtalError: the results cannot be written, or nothing is finished.
    """
    check_report(out)
    worlds = [World(name, number, seed, recipe) for name in names for number in numbers]
    if processes:
        try:
            _train(worlds, [group for group in GROUPS if group in groups or group == "core"], runs, processes)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; call again with the same options to go on") from None
    results = collect(runs, worlds)
    if not results["runs"]:
        raise WtalError(f"{runs}: no world has a row yet")
    write_report(results, out)
    return 0


def check_report(out: Path) -> None:
    """Raise WtalError, before hours of training, if :func:`write_report` could not write its files."""
    for ending in (".json", ".md", ".png"):
        check_writable(out.with_name(out.name + ending))


def write_report(results: Results, out: Path) -> None:
    """Write JSON, page and figure; ``out`` is their path without the extension."""
    image = f"{out.name}.png"
    write_files(out, results, page(results, image), figure(results, benchmarks(results)[0]))
    print(f"{out}.json, .md, .png: {len(results['runs'])} worlds")


def write_files(out: Path, results: Results, text: str, image: bytes) -> None:
    """Write the figure to ``out``.png, the results to ``out``.json and the page to ``out``.md."""
    write_atomically(out.with_name(out.name + ".png"), image)
    write_atomically(out.with_name(out.name + ".json"), (dumps(results, indent=1) + "\n").encode())
    write_atomically(out.with_name(out.name + ".md"), text.encode())


def _train(worlds: Sequence[World], groups: Sequence[str], runs: Path, processes: int) -> None:
    """Train in one process per world and group. A group starts when the one before is finished in all worlds."""
    began, done, total = time.monotonic(), 0, len(worlds) * len(groups)
    with pool(processes) as executor:
        for group in groups:
            for place, future in finished(executor, run_group, [(runs, world, group) for world in worlds]):
                world, rows = worlds[place], future.result()
                done += 1
                summary = ", ".join(f"{row['name']} {row['mean']:.1f}" for row in rows)
                print(
                    f"[{done}/{total}, {time.monotonic() - began:.0f} s] {world.benchmark} world {world.number}, "
                    f"{group}: {summary}",
                    flush=True,
                )
