"""float32 attention on tensor cores: as exact as float32, where the numbers that they multiply have 11 of its 24 bits.

test_temporal_attention.py holds float32 to the definition on every layout; here are numbers that need all their bits.
"""

from __future__ import annotations

import random

import pytest
import torch
from host_cuda.backends import CUDA_DEVICES
from torch import Tensor

import wtal.ops  # noqa: F401  registers the ops

OP = torch.ops.wtal.temporal_attention
NAMES = ("out", "lse", "grad_q", "grad_k", "grad_v")
SEED = random.randrange(1, 2**32)


def definition(q: Tensor, k: Tensor, v: Tensor, window: int | None, scale: float) -> tuple[Tensor, Tensor]:
    """Out and log-sum-exp, every video of full length."""
    index = torch.arange(q.shape[2], device=q.device)
    hidden = (index[:, None] - index).abs() > (q.shape[2] if window is None else window)
    scores = (q @ k.mT * scale).masked_fill(hidden, float("-inf"))
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def outputs(function, inputs: list[Tensor], window: int | None, scale: float) -> list[Tensor]:
    """Out, lse and the gradients of q, k and v, in float64; inputs: q, k, v, grad_out, grad_lse."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs[:3]]
    extra = (None, window, scale) if function is OP else (window, scale)
    found = function(*leaves, *extra)
    grads = torch.autograd.grad(found, leaves, inputs[3:])
    return [x.detach().double() for x in (*found, *grads)]


def to_tf32(x: Tensor) -> Tensor:
    """Rounded to the 11 digits that tensor cores multiply."""
    return (x.contiguous().view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)


def make(total: int, dim: int, device: str, sizes: tuple[float, float, float, float]) -> list[Tensor]:
    """Random q, k, v and grad_out of these sizes, and grad_lse."""
    generator = torch.Generator().manual_seed(SEED)
    shapes = [(1, 2, total, dim)] * 4 + [(1, 2, total)]
    numbers = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [(x * size).float().to(device) for x, size in zip(numbers, (*sizes, sizes[2] * sizes[3]), strict=True)]


def errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    return [(a - b).abs().max().item() for a, b in zip(found, exact, strict=True)]


# Sizes of q, k, v and grad_out.
SIZES = {
    "ordinary": (1.0, 1.0, 1.0, 1.0),
    "large values": (1.0, 1.0, 1e15, 1e12),
    "small values": (1.0, 1.0, 1e-15, 1e-12),
    "large queries, small keys": (1e12, 1e-12, 1.0, 1.0),
    "small queries, large keys": (1e-20, 1e20, 1.0, 1e-6),
}


@pytest.mark.parametrize("device", CUDA_DEVICES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("total", "dim", "window"), [(70, 32, None), (90, 60, 25), (67, 128, None)])
def test_is_as_exact_as_plain_float32(total: int, dim: int, window: int | None, sizes: str, device: str) -> None:
    """At most four times plain PyTorch's error. Rounding the operands to TF32 alone is much more, in every output."""
    inputs, scale = make(total, dim, device, SIZES[sizes]), dim**-0.5
    exact = outputs(definition, [x.double() for x in inputs], window, scale)
    plain = errors(outputs(definition, inputs, window, scale), exact)
    ours = errors(outputs(OP, inputs, window, scale), exact)
    rounded = [*(to_tf32(x).double() for x in inputs[:4]), inputs[4].double()]
    single = errors(outputs(definition, rounded, window, scale), exact)
    for name, error, of_plain, of_tf32, right in zip(NAMES, ours, plain, single, exact, strict=True):
        allowed = 4 * of_plain + 2**-23 * right.abs().max().item()
        assert error <= allowed, f"{name}: error {error:.2e}, plain PyTorch's {of_plain:.2e}, seed {SEED}"
        assert of_tf32 > 20 * allowed, f"{name}: TF32 alone would pass, {of_tf32:.2e}, seed {SEED}"


@pytest.mark.parametrize("device", CUDA_DEVICES)
def test_long_sums_of_one_sign_do_not_drift(device: str) -> None:
    """Tensor cores cut off where float32 rounds: over 80 sums the same way, that would be 20 times float32's error."""
    q, k, v, grad, grad_lse = make(640, 4, device, (0.3, 0.3, 1.0, 1.0))
    inputs = [q, k, v.abs() + 1, grad.abs() + 1, grad_lse]
    exact = outputs(definition, [x.double() for x in inputs], None, 0.5)
    plain = errors(outputs(definition, inputs, None, 0.5), exact)
    ours = errors(outputs(OP, inputs, None, 0.5), exact)
    for name, error, of_plain, right in zip(NAMES, ours, plain, exact, strict=True):
        allowed = 4 * of_plain + 2**-23 * right.abs().max().item()
        assert error <= allowed, f"{name}: error {error:.2e}, plain PyTorch's {of_plain:.2e}, seed {SEED}"


@pytest.mark.parametrize("device", CUDA_DEVICES)
def test_digits_that_tf32_has_not_are_kept(device: str) -> None:
    """Window 0 gives back v; weights of 1 and a big part of 1 leave everything else to the small parts."""
    q, k, v, _, _ = make(65, 33, device, (1.0, 1.0, 1.0, 1.0))
    v = 1 + v * 2**-13
    assert (to_tf32(v) == 1).sum() > v.numel() // 2
    found, _ = OP(q, k, v, None, 0, 1.0)
    assert (found - v).abs().max() <= 2**-22


@pytest.mark.parametrize("device", CUDA_DEVICES)
@pytest.mark.parametrize("total", [8, 64])
def test_the_mean_of_one_number_is_that_number(total: int, device: str) -> None:
    """Small products are summed before big ones: after them, the last digits of 8 numbers would be cut off."""
    q, k, v, _, _ = make(total, 32, device, (0.0, 1.0, 1.0, 1.0))
    v = torch.full_like(v, 1 + 2**-23)
    found, _ = OP(q, k, v, None, None, 1.0)
    assert torch.equal(found, v)


LEAST, MOST = 2**-149, (2 - 2**-11) * 2.0**127  # the smallest number; the first whose big part is infinite


@pytest.mark.parametrize("device", CUDA_DEVICES)
def test_both_ends_of_the_range_of_float32(device: str) -> None:
    """Small numbers lose what is below 2^-136; the largest make NaN of their column, and of no other video or head."""
    q, k, v, _, _ = make(70, 32, device, (1.0, 1.0, 1.0, 1.0))
    ends = [2**-126, 2**-127 + LEAST, 2**-136, 2**-137 + LEAST, LEAST, 0.0]
    ends += [2.0**127, MOST / 2, torch.tensor(MOST).nextafter(torch.tensor(0.0)).item()]
    ends += [-x for x in ends]
    v[:, :, 40, : len(ends)] = torch.tensor(ends)
    found, _ = OP(q, k, v, None, 0, 1.0)
    off = (found.double() - v.double()).abs()
    assert (off <= 2**-136 + 2**-22 * v.double().abs()).all()

    v[0, 1, 40, 5], v[0, 1, 40, 6] = MOST, -torch.finfo(torch.float32).max
    found, _ = OP(q, k, v, None, 9, 1.0)
    assert found[0, 1, 40 - 9 : 40 + 9 + 1, 5:7].isnan().all()
    found[0, 1, :, 5:7] = 0.0
    assert found.isfinite().all()
