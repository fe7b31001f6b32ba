"""A GPU without the instructions that the kernels use gets one clear line from every op."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from host_cuda import extension

from wtal.ops import group_proposals, soft_nms, temporal_attention, temporal_attention_rows, tvl1_flow


@pytest.fixture
def turing() -> Iterator[None]:
    """The CUDA ops on the host, which takes itself for a GPU of compute capability 7.5."""
    library = extension.load()
    library.host_cuda_capability(75)
    try:
        with extension.in_place_of_the_cpu():
            yield
    finally:
        library.host_cuda_capability(86)


def attend() -> object:
    q = torch.zeros(1, 1, 2, 8)
    return temporal_attention(q, q, q)


def attend_rows() -> object:
    return temporal_attention_rows(torch.zeros(4, 3, 1, 8), torch.tensor([0]), torch.tensor([4]))


def differentiate() -> object:
    q, lse = torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 2)
    return torch.ops.wtal.temporal_attention_backward(q, None, q, q, q, q, lse, None, None, 1.0)


def group() -> object:
    return group_proposals(torch.zeros(1, 2, 1), torch.tensor([0.5]))


def suppress() -> object:
    return soft_nms(torch.zeros(0, 2), torch.zeros(0), torch.tensor([0]))


def flow() -> object:
    image = torch.zeros(1, 8, 8, dtype=torch.uint8)
    return tvl1_flow(image, image)


@pytest.mark.usefixtures("turing")
@pytest.mark.parametrize(
    "call",
    [attend, attend_rows, differentiate, group, suppress, flow],
    ids=lambda call: f"{call.__name__}-cuda-on-host",  # as the ops' tests: left out where nothing can be compiled
)
def test_an_old_gpu_is_named_with_what_was_expected(call: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match=r": the GPU cuda:0 has compute capability 7\.5, expected 8\.0 or newer"):
        call()
