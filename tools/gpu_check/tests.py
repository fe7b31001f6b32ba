"""Runs pytest and keeps, at once, each test that fails and how many pass: python -P -m gpu_check.tests -- ARGUMENTS.

A run in which nothing passes is a failure: a test that finds no GPU is skipped, and skipped tests prove nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import pytest

from gpu_check import results


class Recorder:
    """A plugin of pytest that writes to the results."""

    def __init__(self, folder: Path, stage: str) -> None:
        self.folder, self.stage = folder, stage
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count; a failure goes to disk."""
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
        if report.failed:
            lines = report.longreprtext.strip().splitlines() or [""]
            self.failed(report, next((line[1:].strip() for line in lines if line.startswith("E ")), lines[-1]))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be read."""
        if report.failed:
            self.counts["failed"] += 1
            self.failed(report, report.longreprtext.strip().splitlines()[-1])

    def failed(self, report: pytest.TestReport | pytest.CollectReport, reason: str) -> None:
        """Which, and why."""
        row = {"what": "failed test", "test": report.nodeid, "reason": reason[:300]}
        results.add(self.folder, kind="finding", stage=self.stage, **row)

    def pytest_sessionfinish(self) -> None:
        """The counts."""
        results.add(self.folder, kind="finding", stage=self.stage, what="tests", **self.counts)


def selection(wanted: str) -> str:
    """The -k expression: opcheck needs a package that not every machine has."""
    if importlib.util.find_spec("expecttest") is not None:
        return wanted
    print("expecttest is not installed: tests of opcheck are left out")
    return f"({wanted}) and not opcheck" if wanted else "not opcheck"


def main() -> int:
    """0 if some test passed and none failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stage", required=True)
    parser.add_argument("-k", dest="wanted", default="")
    parser.add_argument("arguments", nargs="+")
    options = parser.parse_args()
    recorder = Recorder(options.out, options.stage)
    code = pytest.main(
        ["-q", "-rs", "-p", "no:cacheprovider", "-k", selection(options.wanted), *options.arguments], plugins=[recorder]
    )
    if not recorder.counts["passed"]:
        print("error: no test passed", file=sys.stderr)
        return 1
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
