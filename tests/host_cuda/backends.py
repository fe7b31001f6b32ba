"""Where an op's tests run: on the CPU kernels, on the CUDA kernels compiled for the host, on a GPU."""

from __future__ import annotations

import pytest

CPU = pytest.param("cpu", id="cpu")
CUDA_ON_HOST = pytest.param("cpu", id="cuda-on-host", marks=pytest.mark.cuda_on_host)
CUDA = pytest.param("cuda", id="cuda", marks=pytest.mark.gpu)

DEVICES = [CPU, CUDA_ON_HOST, CUDA]
CUDA_DEVICES = [CUDA_ON_HOST, CUDA]
