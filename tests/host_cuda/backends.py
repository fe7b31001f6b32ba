"""Where an op's tests run: on the CPU kernels, on the CUDA kernels compiled for the host, on their PTX, on a GPU."""

from __future__ import annotations

import pytest
from hypothesis import settings

CPU = pytest.param("cpu", id="cpu")
CUDA_ON_HOST = pytest.param("cpu", id="cuda-on-host", marks=pytest.mark.cuda_on_host)
CUDA_ON_PTX = pytest.param("cpu", id="cuda-on-ptx", marks=pytest.mark.cuda_on_ptx)
CUDA = pytest.param("cuda", id="cuda", marks=pytest.mark.gpu)

DEVICES = [CPU, CUDA_ON_HOST, CUDA_ON_PTX, CUDA]
CUDA_DEVICES = [CUDA_ON_HOST, CUDA_ON_PTX, CUDA]


def at_most(examples: int) -> settings:
    """So many examples, or what the hypothesis profile says where that is fewer."""
    return settings(max_examples=min(examples, settings().max_examples))
