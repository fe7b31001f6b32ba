"""Attention on tensor cores as PTX, forward and backward, at the smallest head size: what the planted asm faults run.

The tests of tests/ops run on PTX too, with every head size; this one needs twelve entries, which compile in seconds.
"""

from __future__ import annotations

import random

import pytest
import torch
from ptx import extension
from torch import Tensor

import wtal.ops  # noqa: F401  registers the ops

pytestmark = [
    pytest.mark.cuda_on_ptx,
    pytest.mark.skipif(extension.nvcc() is None, reason="nvcc is not on the path"),
]
SCALE = 0.2
SEED = random.randrange(1, 2**32)


def definition(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, window: int | None) -> Tensor:
    """Softmax over the keys that each query sees; zeros where it sees none."""
    index = torch.arange(q.shape[2])
    inside = index < lengths[:, None]
    seen = inside[:, :, None] & inside[:, None, :]
    if window is not None:
        seen &= (index[:, None] - index).abs() <= window
    live = seen.any(-1)[:, None, :, None]
    scores = (q @ k.mT * SCALE).masked_fill(~seen[:, None], -torch.inf)
    return torch.where(live, scores, 0.0).softmax(-1) * live @ v


# D = 24 is padded to the head size 32; 80 and 150 end within a tile.
@pytest.mark.parametrize(
    ("total", "lengths", "window"), [(80, [80, 37], None), (150, [150, 1], 9), (64, [64, 63], 0), (1, [1, 0], None)]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_small_heads_forward_and_backward(
    dtype: torch.dtype, total: int, lengths: list[int], window: int | None
) -> None:
    generator = torch.Generator().manual_seed(SEED)
    q, k, v, grad = (torch.randn(2, 1, total, 24, generator=generator, dtype=torch.float64).to(dtype) for _ in "qkvg")
    ends = torch.tensor(lengths)
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    expected = definition(*exact, ends, window)
    expected.backward(grad.double())
    with extension.in_place_of_the_cpu(SEED):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        found, _ = torch.ops.wtal.temporal_attention(*leaves, ends, window, SCALE)
        found.backward(grad)
    pairs = [(found, expected), *((x.grad, y.grad) for x, y in zip(leaves, exact, strict=True))]
    for name, (ours, right) in zip(("out", "grad_q", "grad_k", "grad_v"), pairs, strict=True):
        error = (ours.double() - right).abs().max().item()
        steps = 64 if dtype == torch.float32 else 4  # of half precision only the result is rounded to the dtype
        allowed = steps * torch.finfo(dtype).eps * (1 + right.abs().max().item())
        assert error <= allowed, f"{name}: error {error:.2e}, seed {SEED}"
