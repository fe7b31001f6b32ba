"""Multi-head attention over the snippets of ragged videos, with an optional window around each snippet."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from wtal.ops import _library  # noqa: F401


def temporal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """Softmax attention of each snippet over its own video, softmax(scale * q k^T) v, never holding T x T.

    Query i of video b sees key j when j < lengths[b] and, with a window, abs(i - j) <= window.

    Args:
        q: queries ``[B, H, T, D]``, D contiguous, other strides free (views of a packed projection are not
            copied). float32 or float64 on the CPU, any D; float32, float16 or bfloat16 on CUDA, D <= 128.
        k: keys, as q in shape, dtype and device.
        v: values, as q.
        lengths: snippets in each video, int64 ``[B]`` on q's device; None: all T. Rows from ``lengths[b]`` on
            are never read, so they may hold anything. A length outside 0..T is an error on the CPU; on CUDA,
            where looking would make the host wait, it is clamped.
        window: how many snippets a query sees to each side; None: all, 0: itself only.
        scale: factor of the scores; None: 1 / sqrt(D).

    Returns:
        ``[B, H, T, D]``, contiguous; zeros (and no gradient) in rows from ``lengths[b]`` on.

    Raises:
        ValueError: a wrong shape, dtype, device or stride of an argument, or a negative window.
        RuntimeError: a length outside 0..T (CPU); differentiating twice.

    ``torch.ops.wtal.temporal_attention`` gives log-sum-exp ``[B, H, T]`` as well (float32, float64 for
    float64; zero from ``lengths[b]`` on), also differentiable. On one machine the results are the same bits in
    every run, with any number of threads. Scheme: Dao et al., "FlashAttention" (NeurIPS 2022), section 3.
    """
    _check(q, k, v, lengths, window)
    if scale is None:
        scale = 1.0 / math.sqrt(q.shape[3])
    out, _ = torch.ops.wtal.temporal_attention(q, k, v, lengths, window, scale)
    return out


def _check(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, window: int | None) -> None:
    """Say what is wrong in the caller's terms; the kernels check again what their memory accesses rest on."""
    if q.dim() != 4 or q.shape[3] < 1:
        raise ValueError(f"q has shape {list(q.shape)}, expected [B, H, T, D] with D >= 1")
    for name, tensor in (("k", k), ("v", v)):
        if tensor.shape != q.shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)}, expected q's shape {list(q.shape)}")
        if tensor.dtype != q.dtype:
            raise ValueError(f"{name} has dtype {tensor.dtype}, expected q's dtype {q.dtype}")
        if tensor.device != q.device:
            raise ValueError(f"{name} is on {tensor.device}, expected q's device {q.device}")
    allowed = _DTYPES.get(q.device.type)
    if allowed is not None and q.dtype not in allowed:
        raise ValueError(f"q has dtype {q.dtype}, expected one of {allowed} on {q.device.type}")
    if q.device.type == "cuda" and q.shape[3] > 128:
        raise ValueError(f"q has shape {list(q.shape)}, expected D <= 128 on CUDA")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.shape[3] > 1 and tensor.stride(3) != 1:
            raise ValueError(f"{name} has strides {tensor.stride()}, expected D to be contiguous (.contiguous())")
    if lengths is not None:
        if lengths.shape != q.shape[:1] or lengths.dtype != torch.int64:
            found = f"shape {list(lengths.shape)} and dtype {lengths.dtype}"
            raise ValueError(f"lengths has {found}, expected int64 [B] = [{q.shape[0]}]")
        if lengths.device != q.device:
            raise ValueError(f"lengths is on {lengths.device}, expected q's device {q.device}")
    if window is not None and window < 0:
        raise ValueError(f"window is {window}, expected a number of snippets >= 0, or None")


_DTYPES = {"cpu": (torch.float32, torch.float64), "cuda": (torch.float32, torch.float16, torch.bfloat16)}


@torch.library.register_fake("wtal::temporal_attention")
def _fake(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, window: int | None, scale: float
) -> tuple[Tensor, Tensor]:
    precise = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=precise)


@torch.library.register_fake("wtal::temporal_attention_backward")
def _fake_backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    lengths: Tensor | None,
    window: int | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, lengths, ctx.window, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, lengths, *output)
    ctx.set_materialize_grads(False)  # lse is rarely used: no zeros for it


def _backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, lengths, out, lse = ctx.saved_tensors
    if grad_out is None and grad_lse is None:
        return None, None, None, None, None, None
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    grads = torch.ops.wtal.temporal_attention_backward(
        grad_out, grad_lse, q, k, v, out, lse, lengths, ctx.window, ctx.scale
    )
    return *grads, None, None, None


def _double_backward(ctx: Any, *grads: Tensor | None) -> None:
    raise RuntimeError(
        "temporal_attention cannot be differentiated twice: its gradients are native code without a formula "
        "of their own (write the attention in plain PyTorch where a second derivative is needed)"
    )


torch.library.register_autograd("wtal::temporal_attention", _backward, setup_context=_setup_context)
torch.library.register_autograd("wtal::temporal_attention_backward", _double_backward)
