"""The list of faults stays with the kernels: each still has its place. All of them planted: ``pytest -m slow``."""

from __future__ import annotations

import subprocess
import sys

import pytest
from host_cuda import extension


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", str(extension.ROOT / "tools" / "mutate_kernels.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_every_listed_fault_still_has_its_place() -> None:
    done = script("--list")
    assert done.returncode == 0, done.stderr
    faults = done.stdout.splitlines()
    assert len(faults) == len(set(faults))
    for kind in ("shuffle mask", "tile edge", "stride", "length check", "atomic", "uninitialised", "fragment index"):
        assert any(kind in fault for fault in faults), kind
    assert sum("removed" in fault for fault in faults) == statements()
    assert sum(": asm: " in fault for fault in faults) >= 10


def statements() -> int:
    """How often a barrier or a wait stands in a .cuh, counted by other means."""
    names = ("__syncthreads();", "__syncwarp(", "cp_async_wait_group<")
    lines = [
        line.strip()
        for path in (extension.ROOT / "csrc" / "cuda").glob("*.cuh")
        if path.name != "ptx.cuh"
        for line in path.read_text().splitlines()
    ]
    return sum(line.count(name) for line in lines for name in names if not line.startswith("//"))


@pytest.mark.slow
def test_every_planted_fault_is_caught() -> None:
    done = script()
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
