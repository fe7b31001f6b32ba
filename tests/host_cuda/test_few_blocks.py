"""The ops' tests once more with launches of at most two blocks, which take all the work in turns.

A launch has up to 65536 blocks, so that in every other test a block has one piece of work. What it leaves behind for
the next, in shared memory or registers, only shows here.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from host_cuda import extension

# What tests values, with more groups, columns or pixels than two blocks take at once.
OPS = ("soft_nms", "group_proposals", "tvl1_flow")
TESTS = "cuda-on-host and (equals or groups or many or located)"


@pytest.mark.cuda_on_host
def test_the_ops_tests_pass_with_two_blocks() -> None:
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", TESTS]
    done = subprocess.run(
        [*command, *(f"tests/ops/test_{op}.py" for op in OPS)],
        cwd=extension.ROOT,
        env=os.environ | {"WTAL_HOST_CUDA_VARIANT": "few_blocks", "HYPOTHESIS_PROFILE": "quick"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
