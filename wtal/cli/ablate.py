"""``wtal-ablate``: what each step of the method buys, over many generated worlds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wtal.cli.parsing import parse, run
from wtal.errors import WtalError

PROGRAM = "wtal-ablate"

Benchmark = Literal["small", "easy", "hard", "clip-without-action", "i3d-with-scene", "no-core-gap"]
Group = Literal["core", "comparisons", "rounds", "candidates", "online"]


@dataclass(frozen=True)
class Options:
    """Measure what each step of the method buys: its variants and controls over many worlds of the embedded benchmark.

    Trains every variant in every world, one process and one thread a world, and writes OUT.json, OUT.md and OUT.png:
    mAP as mean and standard deviation, snippet-level faults, and paired differences with 95 % t-intervals. A run that
    was cut off goes on where it stopped when called again. With --check it runs one recorded world again.
    """

    worlds: tuple[str, ...] = ("0-4",)
    """Seeds of the data: 7, or 100-109."""
    benchmarks: tuple[Benchmark, ...] = ("small",)
    """small is the default difficulty; two more difficulties and three worlds in which the premise is false."""
    groups: tuple[Group, ...] = ("core", "comparisons", "rounds", "candidates", "online")
    """Parts of the table; all of one group are done in all worlds before the next begins. core comes always. online:
    both branches learn at once, for as many steps each as in B and F, beside B and F with weights averaged alike."""
    seed: int = 0
    """Seed of weights, order, crops and dropout."""
    recipe: str = "synthetic"
    """Recipe by name, or path of a .toml."""
    runs: Path = Path("runs/ablation")
    """Folder of the runs behind the results, from which an interrupted ablation goes on."""
    out: Path = Path("runs/ablation/results")
    """Results are written to this name with .json, .md and .png behind it."""
    processes: int = 2
    """Worlds at a time."""
    report_only: bool = False
    """Train nothing: write the results of what is finished."""
    join: tuple[Path, ...] = ()
    """Train nothing: write these results (.json), of several machines or calls, as one."""
    check: Path | None = None
    """Results (.json): run their first world again and compare; exits with 1 where a row disagrees."""
    quick: bool = False
    """With --check: only warm-up, its control, one B and one F step."""
    version: bool = False
    """Print versions and build facts, run each op once on each device, and exit."""


def main() -> int:
    """Entry point."""
    return run(command, PROGRAM)


def command(arguments: Sequence[str]) -> int:
    """Run the ablation, or check one."""
    options = parse(Options, PROGRAM, arguments)
    _check(options)
    if options.check is not None:
        from wtal.ablation.check import check
        from wtal.ablation.results import read_results

        lines, agree = check(read_results(options.check), options.quick)
        print("\n".join(lines))
        print(f"{options.check}: {'agrees' if agree else 'DOES NOT AGREE'}")
        return int(not agree)
    if options.join:
        from wtal.ablation.job import check_report, write_report
        from wtal.ablation.join import join

        check_report(options.out)
        write_report(join(options.join), options.out)
        return 0
    try:
        numbers = list(dict.fromkeys(number for text in options.worlds for number in _numbers(text)))
    except ValueError:
        raise WtalError(f"--worlds {' '.join(options.worlds)}: expected numbers such as 7 or 100-109") from None

    from wtal.ablation.job import ablate

    return ablate(
        numbers,
        options.benchmarks,
        options.groups,
        options.seed,
        options.recipe,
        runs=options.runs,
        out=options.out,
        processes=0 if options.report_only else options.processes,
    )


def _check(options: Options) -> None:
    """Raise WtalError for what cannot be, or would not be heeded."""
    if options.processes < 1:
        raise WtalError(f"--processes {options.processes}: expected at least 1")
    if options.quick and options.check is None:
        raise WtalError("--quick goes with --check")
    modes = {"--check": options.check is not None, "--join": bool(options.join), "--report-only": options.report_only}
    if len(given := [name for name, used in modes.items() if used]) > 1:
        raise WtalError(f"{given[0]} and {given[1]}: expected one of them")
    if options.out.is_dir():
        raise WtalError(f"--out {options.out}: is a folder, expected the name of files without .json, .md, .png")


def _numbers(text: str) -> range:
    first, dash, last = text.partition("-")
    found = range(int(first), int(last if dash else first) + 1)
    if not found:
        raise ValueError(text)
    return found


if __name__ == "__main__":
    sys.exit(main())
