"""The ops' tests once more, their kernels compiled with AddressSanitizer and UBSan: every tensor, local array and the
dynamic shared memory have guarded ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from host_cuda import extension

# What tests values. What tests torch.compile, opcheck and error messages has nothing to add.
TESTS = (
    "cuda-on-host and (equals or example or strides or many or no_proposal or nothing or padding or no_video or within)"
)


def runtime(name: str) -> str:
    found = subprocess.run([*extension.compiler(), f"-print-file-name={name}"], capture_output=True, text=True)
    return found.stdout.strip()


def test_the_ops_tests_pass_under_the_sanitizers() -> None:
    libraries = [runtime(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so")]
    if not all(Path(library).is_absolute() for library in libraries):
        pytest.skip(f"{extension.compiler()} has no sanitizer runtimes: {libraries}")
    extension.build("sanitized")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-s", "-x", "-p", "no:cacheprovider", "-k", TESTS, "tests/ops"],
        cwd=extension.ROOT,
        env=os.environ
        | extension.SANITIZER_OPTIONS
        | {
            "LD_PRELOAD": " ".join(libraries),
            "WTAL_HOST_CUDA_VARIANT": "sanitized",
            "HYPOTHESIS_PROFILE": "sanitized",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert " passed" in done.stdout
