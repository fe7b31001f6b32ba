"""The backend of an op's test: ``cuda-on-host`` runs the CUDA kernels, compiled for the host, on CPU tensors."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from host_cuda import extension

# The order in which threads and blocks run; printed, so that a failure can be had again.
SEED = int(os.environ.get("WTAL_HOST_CUDA_SEED") or random.randrange(1, 2**32))
VARIANT = os.environ.get("WTAL_HOST_CUDA_VARIANT", "plain")


def pytest_report_header() -> str:
    return f"CUDA kernels on the host: WTAL_HOST_CUDA_SEED={SEED} ({VARIANT})"


@pytest.fixture(autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reads the marker that DEVICES put on the test's parameter."""
    if request.node.get_closest_marker("cuda_on_host") is None:
        yield
        return
    extension.load(VARIANT, SEED)
    with extension.in_place_of_the_cpu():
        yield
