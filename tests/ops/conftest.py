"""The backend of an op's test, on CPU tensors: ``cuda-on-host`` runs the CUDA kernels that the host compiler made,
``cuda-on-ptx`` the PTX that nvcc made of them, translated."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from host_cuda import extension
from ptx import extension as ptx

# The order in which threads and blocks run; printed with a failure, so that it can be had again.
SEED = int(os.environ.get("WTAL_HOST_CUDA_SEED") or random.randrange(1, 2**32))
VARIANT = os.environ.get("WTAL_HOST_CUDA_VARIANT", "plain")

# As PTX, float32 attention and flow with many drawn cases take minutes: `pytest -m cuda_on_ptx` alone runs these.
LONG_ON_PTX = (
    "test_packed_gives_the_same_bits_as_its_three_parts",
    "test_equals_the_definition_in_float32",
    "test_padding_is_never_read[",
    "test_cuda_is_as_exact_as_plain_pytorch_in_the_same_precision[dtype0",
    "test_gives_the_bits_of_the_padded_op",
    "test_rows_of_no_video_are_zero_and_change_no_bit",
    "test_levels_equal_the_definition",
    "test_stops_where_the_definition_stops",
    "test_motion_past_the_edge_of_the_image",
)
# What torch does with an op's schema, fake kernel and graph is not another thing where the kernel is.
NOT_ON_PTX = ("test_opcheck", "test_packed_opcheck", "test_compiles")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    on_ptx = [item for item in items if item.get_closest_marker("cuda_on_ptx")]
    left_out = {item for item in on_ptx if item.name.startswith(NOT_ON_PTX)}
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))
    if "cuda_on_ptx" not in config.getoption("markexpr"):
        for item in on_ptx:
            if item.name.startswith(LONG_ON_PTX):
                item.add_marker(pytest.mark.skip(reason="minutes as PTX; pytest -m cuda_on_ptx runs it"))


def pytest_report_header() -> str:
    witness = "also as nvcc's PTX" if ptx.nvcc() else "not as PTX, there is no nvcc"
    return f"CUDA kernels on the host ({witness}): WTAL_HOST_CUDA_SEED={SEED} ({VARIANT})"


@pytest.fixture(autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reads the marker that DEVICES put on the test's parameter."""
    if request.node.get_closest_marker("cuda_on_ptx"):
        if ptx.nvcc() is None:
            pytest.skip("nvcc is not on the path")
        print(f"WTAL_HOST_CUDA_SEED={SEED}")
        with ptx.in_place_of_the_cpu(SEED):
            yield
        return
    if request.node.get_closest_marker("cuda_on_host") is None:
        yield
        return
    print(f"WTAL_HOST_CUDA_SEED={SEED}")
    extension.load(VARIANT, SEED)
    with extension.in_place_of_the_cpu():
        yield
