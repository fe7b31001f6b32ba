"""Temporal attention beside what a user would pick instead: ``pytest benchmarks/test_attention.py``.

Each side is first compared with plain attention in float64. GFLOP/s count the pairs (query, key) that see each other
and nothing else, 4 D operations a pair forward and 10 D backward, so a side that computes hidden pairs shows less.
``mask made anew`` has the mask in the time, as lengths that change a batch demand. NATTEN could not be
installed beside this torch and is not here; varlen_attn and FlexAttention's backward run on a GPU only.

On a machine that other work shares, time the processor instead of the clock, with one thread:
``WTAL_BENCH_THREADS=1 pytest benchmarks/test_attention.py --benchmark-timer=time.process_time``.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from attention_forms import FORMS, THUMOS14_LENGTHS, Form, Problem, Unavailable
from memory import peak_extra_bytes
from torch import Tensor

GPU = torch.cuda.is_available()
THREADS = int(os.environ.get("WTAL_BENCH_THREADS", "2"))
CPU_SHAPES = {"4 x 8 x 1000 x 64": [1000, 700, 500, 400], "2 x 8 x 2304 x 64": [2304, 1200]}
GPU_SHAPES = {
    "64 x 8 x 1000 x 64": [min(length, 1000) for length in THUMOS14_LENGTHS],
    "64 x 8 x 1000 x 64, mean 600": [200 + 800 * b // 63 for b in range(64)],
    "64 x 8 x 400 x 64": [min(length, 400) for length in THUMOS14_LENGTHS],
    "2 x 8 x 2304 x 64": [2304, 1200],
}
WINDOWS = [9, 19, 64, None]
SIDES = [*FORMS, "SDPA, mask made anew", "FlexAttention, mask made anew"]

# How many times faster than a side wtal wants to be, forward + backward: on the CPU and on a GPU.
WANTED = {
    ("cpu", "SDPA, sliced a video", None, "4 x 8 x 1000 x 64"): 1 / 1.05,
    ("cpu", "SDPA, sliced a video", None, "2 x 8 x 2304 x 64"): 1 / 1.05,
    ("cpu", "SDPA, mask", 19, "4 x 8 x 1000 x 64"): 10,
    ("cpu", "SDPA, mask", 19, "2 x 8 x 2304 x 64"): 25,
    **{("cpu", side, 19, shape): 2.2 for side in FORMS if side.startswith("chunks") for shape in CPU_SHAPES},
    **{("cuda", "SDPA, mask", None, shape): 1.3 for shape in GPU_SHAPES},
    **{("cuda", side, None, shape): 0.8 for side in ("varlen_attn", "FlexAttention, compiled") for shape in GPU_SHAPES},
    **{
        ("cuda", side, window, shape): 2
        for side in ("varlen_attn", "FlexAttention, compiled")
        for window in (9, 19, 64)
        for shape in GPU_SHAPES
    },
}


@functools.cache
def problem(shape: str, window: int | None, device: str) -> Problem:
    lengths = (CPU_SHAPES | GPU_SHAPES)[shape]
    batch, heads, total, dim = (int(n) for n in shape.split(",")[0].split(" x "))
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(batch, total, 3, heads, dim, generator=generator)
    qkv = qkv.to(device, torch.bfloat16 if device == "cuda" else torch.float32)
    return Problem(qkv, torch.tensor(lengths, device=device), window)


@functools.cache
def grad_out(shape: str, device: str) -> Tensor:
    """Zero beyond each length, so that no form is asked for gradients of padding: ``[B, H, T, D]``."""
    asked = problem(shape, None, device)
    batch, total, _, heads, dim = asked.qkv.shape
    grad = torch.randn(batch, heads, total, dim, generator=torch.Generator().manual_seed(1)).to(asked.qkv)
    return grad.masked_fill(~asked.valid[:, None, :, None], 0)


@functools.cache
def plain(shape: str, window: int | None, device: str) -> list[Tensor]:
    """Out and the gradients of the definition in float64, a video at a time."""
    asked, results = problem(shape, window, device), []
    q, k, v = (x.double() for x in asked.qkv.permute(2, 0, 3, 1, 4))
    for b, length in enumerate(asked.lengths.tolist()):
        leaves = [x[b, :, :length].clone().requires_grad_() for x in (q, k, v)]
        index = torch.arange(length, device=device)
        scores = leaves[0] @ leaves[1].mT / math.sqrt(q.shape[-1])
        if window is not None:
            scores = scores.masked_fill((index[:, None] - index).abs() > window, -torch.inf)
        out = scores.softmax(-1) @ leaves[2]
        grads = torch.autograd.grad(out, leaves, grad_out(shape, device)[b, :, :length].double())
        results.append([torch.nn.functional.pad(x.detach(), (0, 0, 0, q.shape[2] - length)) for x in (out, *grads)])
    return [torch.stack(parts) for parts in zip(*results, strict=True)]


def make(shape: str, window: int | None, device: str, side: str) -> Form:
    fresh = side.endswith(", mask made anew")
    name = {"SDPA, mask made anew": "SDPA, mask", "FlexAttention, mask made anew": "FlexAttention, compiled"}
    kind = FORMS[name.get(side, side)]
    if (kind.full_only and window is not None) or (kind.windowed_only and window is None):
        pytest.skip(f"{side}: not for this window")
    try:
        return kind(problem(shape, window, device), fresh)
    except Unavailable as reason:
        pytest.skip(str(reason))


def grad_for(form: Form, out: Tensor, shape: str, device: str) -> Tensor:
    """grad_out in the layout of the form's own output."""
    grad = grad_out(shape, device)
    if out.dim() == 4 and out.shape != grad.shape:
        grad = grad.transpose(1, 2)
    elif out.dim() == 3:
        grad = grad.transpose(1, 2)[form.problem.valid]
    return grad.contiguous()


def check(form: Form, shape: str, window: int | None, device: str, backward: bool) -> None:
    tolerance = 2e-5 if device == "cpu" else 2e-2
    expected = plain(shape, window, device)
    if not backward:
        with torch.no_grad():
            found = [form.dense(form())]
    else:
        out = form()
        grads = torch.autograd.grad(out, form.leaves, grad_for(form, out, shape, device))
        found = [form.dense(out.detach()), *form.gradients(list(grads))]
    valid = form.problem.valid[:, None, :, None]
    for a, b in zip(found, expected, strict=False):
        error = (a.double() - b).masked_fill(~valid, 0).abs().max().item()
        assert error <= tolerance * (1 + b.abs().max().item()), f"error {error:.1e}"


def timed(form: Form, shape: str, device: str, backward: bool) -> Callable[[], None]:
    if backward:
        grad = grad_for(form, form().detach(), shape, device)

    def run() -> None:
        with torch.set_grad_enabled(backward):
            out = form()
        if backward:
            torch.autograd.grad(out, form.leaves, grad)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def compare(
    benchmark: Any, measure: Any, shape: str, window: int | None, side: str, device: str, backward: bool
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        form = make(shape, window, device, side)
        if backward and form.forward_only:
            pytest.skip(f"{side}: no backward pass on the CPU")
        check(form, shape, window, device, backward)
        function = timed(form, shape, device, backward)
        peak = peak_extra_bytes(function, device)
    finally:
        torch.set_num_threads(before)
    heads, dim = form.problem.qkv.shape[3:]
    benchmark.extra_info["flops"] = form.problem.pairs() * heads * dim * (14 if backward else 4)
    benchmark.extra_info["peak"] = peak
    what = f"{shape} {device}, {'full' if window is None else f'window {window}'}, "
    wanted = WANTED.get((device, side, window, shape)) if backward else None
    measure(what + ("forward + backward" if backward else "forward"), side, function, THREADS, wanted)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("backward", [True, False], ids=["backward", "forward"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", CPU_SHAPES)
def test_cpu(benchmark: Any, measure: Any, shape: str, window: int | None, backward: bool, side: str) -> None:
    compare(benchmark, measure, shape, window, side, "cpu", backward)


@pytest.mark.skipif(not GPU, reason="no CUDA device")
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("backward", [True, False], ids=["backward", "forward"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", GPU_SHAPES)
def test_gpu(benchmark: Any, measure: Any, shape: str, window: int | None, backward: bool, side: str) -> None:
    compare(benchmark, measure, shape, window, side, "cuda", backward)


@pytest.mark.parametrize("side", ["wtal", "SDPA, sliced a video", "SDPA, mask"])
@pytest.mark.parametrize("total", [1000, 4000, 16000])
def test_peak_memory(benchmark: Any, measure: Any, total: int, side: str) -> None:
    """One video of 8 heads, forward + backward: what is allocated besides the inputs, gradients and out included."""
    if total > 4000 and side == "SDPA, mask":
        pytest.skip("its mask alone would have 2 x 10^8 entries, its scores 2 x 10^9")
    asked = Problem(torch.randn(1, total, 3, 2, 64), torch.tensor([total]), None)
    form = FORMS[side](asked)
    grad = torch.randn(1, 2, total, 64)

    def run() -> None:
        torch.autograd.grad(form(), form.leaves, grad)

    torch.set_num_threads(THREADS)
    benchmark.extra_info["peak"] = peak_extra_bytes(run, "cpu")
    benchmark.extra_info["flops"] = asked.pairs() * 2 * 64 * 14
    measure(f"1 x 2 x {total} x 64 cpu, full, forward + backward", side, run, THREADS)


def test_ceilings(benchmark: Any, measure: Any) -> None:
    """What the machine gives at most: a float32 matrix product."""
    a = torch.randn(2048, 2048)
    benchmark.extra_info["flops"] = 2 * 2048**3
    measure("ceiling", "float32 matrix product, 2048 cubed", lambda: a @ a, THREADS)


def test_copy_ceiling(benchmark: Any, measure: Any) -> None:
    a, b = torch.randn(2**26), torch.empty(2**26)
    benchmark.extra_info["bytes"] = 2 * a.nbytes
    measure("ceiling", "copy of 256 MiB", lambda: b.copy_(a), THREADS)
