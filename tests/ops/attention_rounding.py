"""What float32 sums and scores cost temporal_attention, by the size of its inputs; for both forms of the op."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDING = torch.finfo(torch.float32).eps


def biggest(x: Tensor) -> float:
    """The largest absolute value, 0 of nothing."""
    return x.abs().max().item() if x.numel() else 0.0


def float32_may_lose(
    scale: float, q: Tensor, k: Tensor, v: Tensor, grad_out: Tensor, grad_lse: Tensor, sums: Tensor
) -> dict[str, float]:
    """For each output the error that exact arithmetic on rounded scores, weights and score gradients would leave.

    A weight is the exponential of a rounded score, so its relative error grows with the scores. A score's gradient is a
    difference of sums of D products, and a value's is a sum over queries; the terms of both may cancel to nothing.

    ``q``, ``k``, ``v`` and ``grad_out`` are rows ``[..., D]``; ``sums`` is grad_v if grad_out had no sign.
    """
    longest_q, longest_k, longest_v, longest_grad = (biggest(x.double().norm(dim=-1)) for x in (q, k, v, grad_out))
    peak = abs(scale) * longest_q * longest_k
    score_gradient = abs(scale) * (longest_v * longest_grad + biggest(grad_lse)) * max(longest_q, longest_k)
    return {
        "out": ROUNDING * peak * biggest(v),
        "lse": ROUNDING * peak,
        "grad_q": ROUNDING * (1 + peak) * score_gradient,
        "grad_k": ROUNDING * (1 + peak) * score_gradient,
        "grad_v": ROUNDING * (2 + peak) * biggest(sums),
    }
