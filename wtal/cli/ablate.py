"""``wtal-ablate``: the ablation of the method over generated worlds, or a comparison of recipes on a data set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wtal.cli.parsing import parse, run, whole_numbers
from wtal.errors import WtalError
from wtal.settings.recipe import default_recipe

PROGRAM = "wtal-ablate"

Benchmark = Literal[
    "small",
    "easy",
    "hard",
    "clip-without-action",
    "i3d-with-scene",
    "no-core-gap",
    "version-2",
    "version-2-clip-without-action",
    "version-2-i3d-with-scene",
    "version-2-no-core-gap",
]
Group = Literal["core", "comparisons", "rounds", "candidates", "online"]


@dataclass(frozen=True)
class Options:
    """Measure what each step of the method buys: its variants and controls over many worlds of the embedded benchmark.

    Trains every variant in every world, with one process and one thread per world, and writes OUT.json, OUT.md and
    OUT.png: mAP as mean and standard deviation, snippet-level faults, and paired differences with 95 % t-intervals. The
    same command again resumes an interrupted run. With --check it runs one recorded world again.

    With --dataset it compares recipes on a data set instead: each recipe and seed is trained and measured on the test
    videos, or with --folds K on each of K parts of the training videos while the others are trained on.
    """

    dataset: str | None = None
    """Compare --recipes on this data set, as wtal-train has it: a name, or the path of a dataset.toml."""
    seeds: tuple[str, ...] = ("0-2",)
    """With --dataset: seeds of weights, order, crops and dropout, 7 or 0-2."""
    recipes: tuple[str, ...] = ()
    """With --dataset: recipes by name, or paths of .toml; default: the data set's own recipe."""
    folds: int = 0
    """With --dataset: cross-validation inside the training videos, in this many parts; test videos are not used."""
    root: Path | None = None
    """With --dataset: folder of the data set, as wtal-train has it."""
    allow_missing: bool = False
    """With --dataset: leave out the videos whose features are missing."""

    worlds: tuple[str, ...] = ("0-4",)
    """Seeds of the data: 7, or 100-109."""
    benchmarks: tuple[Benchmark, ...] = ("small",)
    """small has the default difficulty, easy and hard have others; in clip-without-action, i3d-with-scene and
    no-core-gap the premise of the method is meant to be false. The prefix version-2 stands for version 2 of the
    generator."""
    groups: tuple[Group, ...] = ("core", "comparisons", "rounds", "candidates", "online")
    """Parts of the table; a group starts when the one before is finished in all worlds. core is always included.
    online: both branches train at the same time, for as many steps as in B and F; its control is B and F with the same
    weight averaging."""
    seed: int = 0
    """Seed of weights, order, crops and dropout."""
    recipe: str = "synthetic"
    """Recipe by name, or path of a .toml."""
    runs: Path | None = None
    """Folder of the runs, from which an interrupted ablation is resumed; default: runs/ablation, or
    runs/comparison-<dataset> with --dataset."""
    out: Path | None = None
    """Path of the results; .json, .md and .png are appended. Default: results in the folder of the runs, or
    results-<K>-folds with --folds K."""
    processes: Annotated[int, tyro.conf.arg(aliases=["--jobs"])] = 2
    """Worlds, or trainings on the data set, at the same time; one thread each."""
    report_only: bool = False
    """Train nothing: write the results of the finished runs."""
    join: tuple[Path, ...] = ()
    """Train nothing: merge these results (.json), from several machines or calls, into one."""
    check: Path | None = None
    """Results (.json): run their first world again and compare; the exit code is 1 if a row disagrees."""
    quick: bool = False
    """With --check: only warm-up, its control, one B and one F step."""
    version: bool = False
    """Print versions and build facts, run each op once on each device, and exit."""


def main() -> int:
    """Entry point."""
    return run(command, PROGRAM)


def command(arguments: Sequence[str]) -> int:
    """Run an ablation or a comparison, check recorded results, or merge results."""
    options = parse(Options, PROGRAM, arguments)
    _check(options)
    if options.dataset is not None:
        return _compare(options, options.dataset)
    runs = options.runs or Path("runs/ablation")
    out = options.out or runs / "results"
    if options.check is not None:
        from wtal.ablation.reproduction import check
        from wtal.ablation.results import read_results

        lines, agree = check(read_results(options.check), options.quick)
        print("\n".join(lines))
        print(f"{options.check}: {'agrees' if agree else 'DOES NOT AGREE'}")
        return int(not agree)
    if options.join:
        from wtal.ablation.job import check_report, write_report
        from wtal.ablation.join import join

        check_report(out)
        write_report(join(options.join), out)
        return 0
    worlds = whole_numbers(options.worlds, "--worlds", "7 or 100-109")

    from wtal.ablation.job import ablate

    return ablate(
        worlds,
        options.benchmarks,
        options.groups,
        options.seed,
        options.recipe,
        runs=runs,
        out=out,
        processes=0 if options.report_only else options.processes,
    )


def _compare(options: Options, dataset: str) -> int:
    """Compare recipes on a data set."""
    seeds = whole_numbers(options.seeds, "--seeds", "7 or 0-2")
    path = Path(dataset)
    recipes = options.recipes or (default_recipe(dataset),)
    name = path.stem
    if dataset.endswith(".toml"):
        path = path.resolve()
        dataset = str(path)
        name = path.parent.name if path.stem == "dataset" else path.stem
    runs = options.runs or Path("runs") / f"comparison-{name}"
    root = str(options.root.resolve()) if options.root else None

    from wtal.ablation.compare_recipes import compare, trials_of

    return compare(
        trials_of(dataset, root, options.allow_missing, recipes, seeds, options.folds),
        runs=runs,
        out=options.out or runs / (f"results-{options.folds}-folds" if options.folds else "results"),
        processes=0 if options.report_only else options.processes,
    )


OF_WORLDS = ("worlds", "benchmarks", "groups", "seed", "recipe", "join", "check", "quick")
OF_DATA = ("seeds", "recipes", "folds", "root", "allow_missing")
OF_TRAINING = ("worlds", "benchmarks", "groups", "seed", "recipe", "runs", "processes")


def _check(options: Options) -> None:
    """Raise WtalError for options that are impossible or would have no effect."""
    if options.processes < 1:
        raise WtalError(f"--processes {options.processes}: expected at least 1")
    default = Options()
    here, there = (OF_WORLDS, "without") if options.dataset is not None else (OF_DATA, "with")
    for name in here:
        if getattr(options, name) != getattr(default, name):
            raise WtalError(f"--{name.replace('_', '-')} goes {there} --dataset")
    if options.folds == 1 or options.folds < 0:
        raise WtalError(f"--folds {options.folds}: expected at least 2, or 0 for the data set's own test videos")
    if options.quick and options.check is None:
        raise WtalError("--quick goes with --check")
    modes = {"--check": options.check is not None, "--join": bool(options.join), "--report-only": options.report_only}
    if len(given := [name for name, used in modes.items() if used]) > 1:
        raise WtalError(f"{given[0]} and {given[1]}: expected one of them")
    if options.check is not None or options.join:
        mode, idle = ("--check", (*OF_TRAINING, "out")) if options.check is not None else ("--join", OF_TRAINING)
        for name in idle:
            if getattr(options, name) != getattr(default, name):
                raise WtalError(f"--{name} goes without {mode}")
    if options.out is not None and options.out.is_dir():
        raise WtalError(f"--out {options.out}: is a folder, expected the name of files without .json, .md, .png")


if __name__ == "__main__":
    sys.exit(main())
