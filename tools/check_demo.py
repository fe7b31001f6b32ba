"""Fail unless the newest run under ./runs shows what a demo must show: each step beats what it started from.

wtal-train && python tools/check_demo.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

GAINS = (("VLP zero-shot", "VLP after B"), ("CBP after warm-up", "CBP after F"))


def main() -> int:
    """Compare, print, and return the exit code."""
    runs = sorted(Path("runs").glob("synthetic-*/metrics.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise SystemExit(f"error: no synthetic-*/metrics.json under {Path('runs').resolve()}: run wtal-train first")
    run = runs[-1]
    mean = {row["name"]: row["mean"] for row in json.loads(run.read_text())["rows"]}
    for before, after in GAINS:
        print(f"{before} {mean[before]:.1f} -> {after} {mean[after]:.1f}")
    return int(not all(mean[before] < mean[after] for before, after in GAINS))


if __name__ == "__main__":
    sys.exit(main())
