"""What a run leaves on disk: one line of JSON for each thing found, written at once, so that a cut costs nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

RESULTS, LOG, REPORT, SUMMARY = "results.jsonl", "gpu_check.log", "gpu_check.md", "gpu_check.json"
"""The four files of the output folder."""

Row = dict[str, Any]


def add(folder: Path, **row: Any) -> None:
    """Append one finding. Several processes may do so: a line is one write to a file opened for appending."""
    with (folder / RESULTS).open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path) -> list[Row]:
    """All findings in the order in which they came; a last line that was cut is left out."""
    rows = []
    path = folder / RESULTS
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
