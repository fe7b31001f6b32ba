"""Runs one measuring stage in a process of its own: python -P -m gpu_check.measure TOPIC --out FOLDER [--dry-run]."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from gpu_check import ROOT
from gpu_check.hardware import Bench

TOPICS = ("ceilings", "full_size", "attention", "postprocessing", "steps", "flow")


def main() -> int:
    """Import the topic's file and let it measure; 1 where it found something wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topic", choices=TOPICS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    sys.path.append(str(ROOT / "benchmarks"))  # attention_forms, workloads, training_step
    topic = importlib.import_module(f"gpu_check.{options.topic}")
    faults = topic.measure(Bench(options.topic, options.out, options.dry_run))
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
