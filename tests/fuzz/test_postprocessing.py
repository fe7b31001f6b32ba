"""The C++ entry points of post-processing against their definitions under AddressSanitizer and UBSan, random inputs."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = ["-O1", "-std=c++20", "-ffp-contract=off", "-fopenmp-simd", "-fsanitize=address,undefined", "-DSTANDALONE"]


def build(folder: Path) -> Path:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler on PATH")
    program = folder / "postprocessing"
    source = ROOT / "tests/fuzz/postprocessing.cpp"
    stop = ["-fno-sanitize-recover=all", f"-I{ROOT / 'csrc'}", str(source), "-o", str(program)]
    subprocess.run([compiler, *FLAGS, *stop], check=True)
    return program


def test_no_crash_and_no_difference(tmp_path: Path) -> None:
    seed = secrets.randbelow(2**32)
    result = subprocess.run([build(tmp_path), str(seed), "300"], capture_output=True, text=True)
    assert result.returncode == 0, f"seed {seed}: {result.stderr}"
    assert result.stdout == "300 runs\n"
