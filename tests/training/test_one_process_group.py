"""A process group of one process: the collectives of training are called as with several, and change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from wtal.platform.distributed import Processes


@pytest.fixture(
    params=[
        pytest.param(("gloo", "cpu"), id="gloo"),
        pytest.param(("cpu:gloo,cuda:nccl", "cuda"), id="nccl", marks=pytest.mark.gpu),
    ]
)
def group(request: pytest.FixtureRequest) -> Iterator[tuple[Processes, torch.device]]:
    backend, device = request.param
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=60))
    try:
        # With a size of 1 it would call nothing at all.
        yield Processes(rank=0, size=2, patient=dist.new_group(backend="gloo")), torch.device(device)
    finally:
        dist.destroy_process_group()


def test_sums_and_broadcasts_of_one_process_are_its_own_values(group: tuple[Processes, torch.device]) -> None:
    processes, device = group
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(3, 5, device=device)) for _ in range(3)]
    gradients = [torch.randn(3, 5, device=device), None, torch.randn(3, 5, device=device)]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = None if gradient is None else gradient.clone()
    processes.sum_gradients(weights)
    assert weights[1].grad is None
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is None or torch.equal(weight.grad, gradient)
    values = [weight.detach().clone() for weight in weights]
    processes.broadcast(weights)
    assert all(torch.equal(weight, value) for weight, value in zip(weights, values, strict=True))
    assert processes.add([1.5, 2.0]) == [1.5, 2.0]
