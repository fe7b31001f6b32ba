"""Everything that only a GPU can prove or measure, in one lease of ten minutes and without a network."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from gpu_check import ROOT, plan, report, results, run


def main() -> int:
    """Run what is asked for; 0 if every stage that ran has passed."""
    parser = argparse.ArgumentParser(prog="tools/gpu_check.sh", description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(os.environ.get("OUT") or "gpu_check_results"),
        help="folder of the results; default: $OUT, else gpu_check_results",
    )
    parser.add_argument("--minutes", type=float, default=9.5, help="for all stages; what does not fit is left out")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with the wtal that is installed")
    parser.add_argument("--report", action="store_true", help="only write the report, from what lies in the folder")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="stages whose name contains one of these words")
    options = parser.parse_args()
    folder = options.out.resolve()
    if options.report:
        if not (folder / results.RESULTS).exists():
            sys.exit(f"{folder / results.RESULTS} does not exist: there is nothing to report")
        print(report.write(folder))
        return 0

    from gpu_check.hardware import capability, facts  # torch

    found = capability()
    if not options.dry_run and (reason := unfit(found)):
        print(reason, file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    for name in (results.RESULTS, results.LOG, results.REPORT, results.SUMMARY):
        (folder / name).unlink(missing_ok=True)
    (folder / results.LOG).touch()
    results.add(folder, kind="facts", **({"dry run": True} if options.dry_run else {}), **facts(), **versions())
    major, minor = found or (9, 0)
    stages = plan.stages(folder, 10 * major + minor, options.dry_run)
    if options.only:
        stages = [stage for stage in stages if any(word in stage.name for word in options.only)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as if it had been interrupted: the report is written
    try:
        run.Run(stages, folder, 60 * options.minutes).go()
    finally:
        print("\n" + report.write(folder))
        print(f"\nwritten to {folder}: {', '.join(path.name for path in sorted(folder.iterdir()))}", flush=True)
    rows = report.last_of_each(row for row in results.read(folder) if row["kind"] == "stage")
    return int(any(row["result"] not in ("passed", "left out") for row in rows))


def unfit(found: tuple[int, int] | None) -> str:
    """In one line, why this machine cannot be asked; empty if it can."""
    if found is None:
        return "torch finds no GPU here; --dry-run checks the script without one"
    if found < (8, 0):
        own = ".".join(map(str, found))
        return f"the GPU has compute capability {own}, wtal's kernels need 8.0 (A100, RTX 30 series) or newer"
    return "" if shutil.which("nvcc") else "nvcc is not on the path: wtal's kernels cannot be built for this GPU"


def versions() -> dict[str, str]:
    """Of the driver, nvcc and the tree, where they can be had."""
    commands = {
        "driver": ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        "nvcc": ["nvcc", "--version"],
        "tree": ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        "date": ["date", "-u", "+%Y-%m-%d"],
    }
    answers = {}
    for name, command in commands.items():
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            continue
        if name == "nvcc":
            answer = answer.partition("release ")[2].partition(",")[0]
        if answer:
            answers[name] = answer.splitlines()[0]
    return answers


if __name__ == "__main__":
    sys.exit(main())
