"""The backend of an op's test, on CPU tensors: ``cuda-on-host`` runs the CUDA kernels that the host compiler made,
``cuda-on-ptx`` the PTX that nvcc made of them, translated."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from host_cuda import extension
from ptx import extension as ptx

# The order in which threads and blocks run; printed, so that a failure can be had again.
SEED = int(os.environ.get("WTAL_HOST_CUDA_SEED") or random.randrange(1, 2**32))
VARIANT = os.environ.get("WTAL_HOST_CUDA_VARIANT", "plain")


def pytest_report_header() -> str:
    witness = "also as nvcc's PTX" if ptx.nvcc() else "not as PTX, there is no nvcc"
    return f"CUDA kernels on the host ({witness}): WTAL_HOST_CUDA_SEED={SEED} ({VARIANT})"


@pytest.fixture(autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reads the marker that DEVICES put on the test's parameter."""
    if request.node.get_closest_marker("cuda_on_ptx"):
        if ptx.nvcc() is None:
            pytest.skip("nvcc is not on the path")
        with ptx.in_place_of_the_cpu(SEED):
            yield
        return
    if request.node.get_closest_marker("cuda_on_host") is None:
        yield
        return
    extension.load(VARIANT, SEED)
    with extension.in_place_of_the_cpu():
        yield
