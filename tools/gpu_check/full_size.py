"""Is attention right at the size of a training batch? Forward and backward against float64, and the same bits twice.

The definition is computed a video and head at a time, for some of them; all of the output is looked at for numbers that
are not finite, and the rows of no video for zeros. In every precision the error may be twice that of plain PyTorch.
"""

from __future__ import annotations

import math

import torch
from attention_forms import THUMOS14_LENGTHS
from torch import Tensor

from gpu_check.ceilings import name
from gpu_check.hardware import Bench
from wtal.ops import temporal_attention_rows

NAMES = ("out", "grad_q", "grad_k", "grad_v")
Sampled = list[Tensor]


def measure(bench: Bench) -> list[str]:
    """One finding for each precision, lengths and window; what is wrong is returned."""
    dtypes = (torch.float32,) if bench.dry else (torch.bfloat16, torch.float32, torch.float16)
    cases = [
        (kind, lengths, window, dtype)
        for dtype in dtypes
        for kind, lengths in lengths_of(bench).items()
        for window in (19, None)
    ]
    return [fault for case in cases for fault in one(bench, *case)]


def lengths_of(bench: Bench) -> dict[str, list[int]]:
    """Snippets of each video: a batch without padding, and THUMOS14's cropped as training crops."""
    if bench.dry:
        return {"dense": [70, 70], "ragged": [70, 1, 33]}
    return {"dense": [1000] * 64, "ragged": [min(length, 1000) for length in THUMOS14_LENGTHS]}


def one(bench: Bench, kind: str, lengths: list[int], window: int | None, dtype: torch.dtype) -> list[str]:
    """Compare, keep the errors, return what is wrong."""
    heads, dim, gap = (2, 16, 3) if bench.dry else (8, 64, 3)
    torch.manual_seed(0)
    spans = torch.tensor(lengths, device=bench.device)
    starts = (spans + gap).cumsum(0) - spans - gap  # three rows of no video behind each
    rows = int(starts[-1]) + lengths[-1] + gap
    qkv = torch.randn(rows, 3, heads, dim, device=bench.device).to(dtype).requires_grad_()
    grad = torch.randn(rows, heads, dim, device=bench.device).to(dtype)

    def run() -> list[Tensor]:
        torch.use_deterministic_algorithms(True)  # new memory holds NaN: what nobody writes is seen
        out = temporal_attention_rows(qkv, starts, spans, window)
        (gradient,) = torch.autograd.grad(out, qkv, grad)
        torch.use_deterministic_algorithms(False)
        return [out.detach(), *gradient.unbind(1)]  # [R, H, D] each

    found, again = run(), run()
    video = torch.zeros(rows, dtype=torch.bool, device=bench.device)
    for start, length in zip(starts.tolist(), lengths, strict=True):
        video[start : start + length] = True
    what = f"{kind}, window {window or 'full'}, {name(dtype)}"
    faults = []
    for label, tensor, second in zip(NAMES, found, again, strict=True):
        if not torch.isfinite(tensor).all():
            faults.append(f"{what}: {label} is not finite everywhere")
        if tensor[~video].any():
            faults.append(f"{what}: {label} is not zero in rows of no video")
        if not torch.equal(tensor, second):
            faults.append(f"{what}: {label} differs between two runs")
    errors = worst_errors(qkv, grad, found, list(zip(starts.tolist(), lengths, strict=True)), window)
    for label, (error, plain, size) in errors.items():
        if not error <= 2 * plain + 1e-6 * size:
            faults.append(f"{what}: {label} has error {error:.2e}, plain PyTorch {plain:.2e}")
    bench.found(
        what="full size", case=what, rows=rows, faults=faults, errors={label: e[:2] for label, e in errors.items()}
    )
    return faults


def worst_errors(
    qkv: Tensor, grad: Tensor, found: Sampled, videos: list[tuple[int, int]], window: int | None
) -> dict[str, tuple[float, float, float]]:
    """Of each output: the largest error, that of plain PyTorch in the same precision, and the size of the values."""
    step = max(1, len(videos) // 8)
    worst = dict.fromkeys(NAMES, (0.0, 0.0, 1.0))
    for b in [*range(0, len(videos), step), len(videos) - 1]:
        start, length = videos[b]
        head = b % qkv.shape[2]
        part = slice(start, start + length)
        q, k, v = (x[part, head].detach() for x in qkv.unbind(1))
        exact = definition(*(x.double() for x in (q, k, v, grad[part, head])), window)
        plain = definition(q, k, v, grad[part, head], window)
        for label, a, p, e in zip(NAMES, found, plain, exact, strict=True):
            error, of_plain, size = worst[label]
            ours = (a[part, head].double() - e).abs().max().item()
            worst[label] = (
                max(error, ours),
                max(of_plain, (p.double() - e).abs().max().item()),
                max(size, e.abs().max().item()),
            )
    return worst


def definition(q: Tensor, k: Tensor, v: Tensor, grad: Tensor, window: int | None) -> list[Tensor]:
    """Out and the gradients of one video and head, ``[T, D]`` each."""
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    scores = leaves[0] @ leaves[1].mT / math.sqrt(q.shape[1])
    if window is not None:
        index = torch.arange(len(q), device=q.device)
        scores = scores.masked_fill((index[:, None] - index).abs() > window, -torch.inf)
    out = scores.softmax(-1) @ leaves[2]
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]
