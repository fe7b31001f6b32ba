"""The threads of one flow share short loops: every index once, exceptions reach the caller; under ThreadSanitizer."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("members", [1, 2, 5])
def test_every_index_once_and_no_exception_is_lost(members: int, tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler on PATH")
    program, source = tmp_path / "team", ROOT / "tests/fuzz/team.cpp"
    flags = ["-O1", "-std=c++20", "-pthread", "-fsanitize=thread", f"-I{ROOT / 'csrc'}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True)
    seed = secrets.randbelow(2**32)
    # Threads may have addresses at random that ThreadSanitizer does not know; setarch gives them fixed ones.
    fixed = ["setarch", "-R"] if shutil.which("setarch") else []
    done = subprocess.run([*fixed, str(program), str(members), str(seed), "2000"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2000 loops\n"), f"seed {seed}: {done.stderr}"
