"""Fail unless the newest run under ./runs shows what a demo must show: each step mends its student.

wtal-train && python tools/check_demo.py

The B step is judged by VLP's false positives, its fault, of which it takes two thirds. VLP's mAP rises as well, but in
world 0 by no more than rounding on another CPU can take from a single world; so that is printed only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

STEPS = (("VLP zero-shot", "VLP after B"), ("CBP after warm-up", "CBP after F"), ("CBP after F", "ensemble"))


def main() -> int:
    """Compare, print, and return the exit code."""
    runs = sorted(Path("runs").glob("synthetic-*/metrics.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise SystemExit(f"error: no synthetic-*/metrics.json under {Path('runs').resolve()}: run wtal-train first")
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in json.loads(runs[-1].read_text())["rows"]}
    for before, after in STEPS:
        told = [f"{name} {rows[name]['mean']:.1f} (FP {_false(rows[name]):.2f})" for name in (before, after)]
        print(" -> ".join(told))
    (zero_shot, b), *others = STEPS
    mended = _false(rows[b]) < _false(rows[zero_shot])
    return int(not (mended and all(rows[before]["mean"] < rows[after]["mean"] for before, after in others)))


def _false(row: dict[str, Any]) -> float:
    return float(row["snippets"]["false_positive"])


if __name__ == "__main__":
    sys.exit(main())
