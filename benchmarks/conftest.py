"""What all benchmarks share.

``pytest benchmarks`` times and prints, for each group, every side's median, its threads, and how many times slower than
wtal's own side it is; ``--table FILE`` writes the same, with the machine, to a file, and ``--plots FOLDER`` draws how
times grow. pytest-benchmark's options work as ever: ``--benchmark-json``, ``--benchmark-save``, ``pytest-benchmark
compare``.

A benchmark asks for the fixture ``measure``::

    def test_something(measure, threads, side):
        measure("group", side, function, threads=threads, at_least=5)

``side`` is ``"wtal"`` or a peer's name; ``at_least`` states on a peer's line how many times faster wtal wants to be.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).parents[1]]
sys.path.insert(0, str(Path(__file__).parent))  # peers, workloads

_seconds = 1.0  # about so long for each side


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--peer-module", metavar="FILE", help="a compiled ActionFormer nms_1d_cpu to time beside wtal")
    parser.addoption("--table", metavar="FILE", help="write the tables of ratios to this file")
    parser.addoption("--plots", metavar="FOLDER", help="write plots of how times grow with sizes to this folder")


@pytest.fixture
def measure(benchmark: Any) -> Any:
    """``measure(group, side, function, threads=1, at_least=None)`` times ``function()`` and returns what it gives."""

    def run(group: str, side: str, function: Callable[[], Any], threads: int = 1, at_least: float | None = None) -> Any:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            start = time.perf_counter()
            result = function()
            once = time.perf_counter() - start
            if once < _seconds:  # warm now
                start = time.perf_counter()
                function()
                once = time.perf_counter() - start
            benchmark.group = group
            benchmark.extra_info.update(side=side, threads=threads, at_least=at_least)
            if once > _seconds:  # slow peers
                benchmark.pedantic(function, rounds=2, iterations=1)
            else:
                benchmark.pedantic(function, rounds=max(5, min(500, int(_seconds / once))), iterations=1)
        finally:
            torch.set_num_threads(before)
        return result

    return run


def machine() -> list[str]:
    """A few lines on what the numbers were measured with."""
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown CPU"
    )
    cores = len([line for line in _lines("/proc/cpuinfo") if line.startswith("processor")])
    vectors = [name for name in ("avx2", "avx512f") if any(name in line.split() for line in _lines("/proc/cpuinfo"))]
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    return [
        f"{model}, {cores} cores ({', '.join(vectors)}), {platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}, torch {torch.__version__}, commit {commit or 'unknown'}",
    ]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def tables(benchmarks: list[Any]) -> list[str]:
    """For each group a line a side: median, threads, times slower than wtal."""
    groups: dict[str, list[Any]] = {}
    for bench in benchmarks:
        if "side" in bench.extra_info and bench.stats.rounds:
            groups.setdefault(bench.group, []).append(bench)
    lines = []
    for group, benches in groups.items():
        own = [bench for bench in benches if bench.extra_info["side"] == "wtal"]
        base = own[0].stats.median if own else None
        lines += ["", group]
        for bench in benches:
            info, median = bench.extra_info, bench.stats.median
            threads = f"{info['threads']} thread{'s' if info['threads'] > 1 else ''}"
            line = f"  {info['side']:<34} {threads:<10} {1e3 * median:>11.3f} ms"
            if base and bench is not own[0]:
                line += f" {median / base:>9.2f}x"
                if wanted := info["at_least"]:
                    line += f"   wanted {wanted:g}x: {'met' if median / base >= wanted else 'MISSED'}"
            if flops := info.get("flops"):
                line += f"   {flops / median / 1e9:.0f} GFLOP/s"
            if moved := info.get("bytes"):
                line += f"   {moved / median / 1e9:.1f} GB/s"
            if videos := info.get("videos"):
                line += f"   {videos / median:.1f} videos/s"
            if rate := info.get("rate"):
                line += f"   {rate[0] / median:.3g} {rate[1]}"
            if (peak := info.get("peak")) is not None:
                line += f"   peak +{peak / 2**20:.1f} MiB"
            lines.append(line)
    return lines


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    lines = tables(session.benchmarks) if session else []
    if not lines:
        return
    lines = [*machine(), "median of the rounds; the factor is how many times the first wtal line of the group", *lines]
    terminalreporter.section("ratios")
    terminalreporter.write_line("\n".join(lines))
    if path := config.getoption("--table"):
        Path(path).write_text("\n".join(lines) + "\n")
    if folder := config.getoption("--plots"):
        from plots import write_scaling_plots

        for file in write_scaling_plots(session.benchmarks, Path(folder), machine()[0]):
            terminalreporter.write_line(f"wrote {file}")
