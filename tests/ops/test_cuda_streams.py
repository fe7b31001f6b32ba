"""On a GPU: the ops follow torch's current stream and the device of their tensors, not the default ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from wtal.ops import group_proposals, soft_nms, temporal_attention

pytestmark = pytest.mark.gpu


def attention(x: Tensor) -> list[Tensor]:
    q = x.reshape(1, 2, 64, 32)
    return [temporal_attention(q, q, q, window=9)]


def proposals(x: Tensor) -> list[Tensor]:
    return list(group_proposals(x.reshape(2, 512, 4), torch.tensor([0.2, 0.7], device=x.device)))


def suppression(x: Tensor) -> list[Tensor]:
    start = x.reshape(2, 2048)[0] * 50
    offsets = torch.tensor([0, 1000, 2048], device=x.device)
    return list(soft_nms(torch.stack([start, start + 3], 1), x.reshape(2, 2048)[1], offsets))


OPS = [attention, proposals, suppression]


@pytest.mark.parametrize("op", OPS)
def test_an_op_waits_for_what_its_own_stream_still_computes(op: Callable[[Tensor], list[Tensor]]) -> None:
    values = torch.rand(4096, generator=torch.Generator().manual_seed(0))
    expected = op(values.cuda())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        x = torch.full((4096,), 0.5, device="cuda")
        ready = values.pin_memory().to("cuda", non_blocking=True)
        torch.cuda._sleep(50_000_000)  # tens of milliseconds; an op on another stream would see 0.5 everywhere
        x.copy_(ready)
        found = op(x)
    stream.synchronize()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("op", OPS)
def test_an_op_runs_on_the_device_of_its_tensors(op: Callable[[Tensor], list[Tensor]]) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU only")
    values = torch.rand(4096)
    torch.cuda.set_device(0)
    found, expected = op(values.to("cuda:1")), op(values.to("cuda:0"))
    assert torch.cuda.current_device() == 0
    for a, b in zip(found, expected, strict=True):
        assert a.device == torch.device("cuda:1")
        assert torch.equal(a.cpu(), b.cpu())
