"""What one process has built, the next one finds: it starts neither a compiler nor a linker."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from host_cuda import extension as host
from ptx import extension as ptx

NEEDS_NVCC = pytest.mark.skipif(ptx.nvcc() is None, reason="nvcc is not on the path")


@pytest.mark.parametrize("build", [host.build, pytest.param(ptx.build, marks=NEEDS_NVCC)], ids=["host", "ptx"])
def test_a_second_build_runs_nothing(build: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = build()

    def run(command: list[str], **_: object) -> None:
        pytest.fail(f"runs once more: {command}")

    monkeypatch.setattr(subprocess, "run", run)
    assert build() == first
