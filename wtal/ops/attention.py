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
    """Softmax attention of each snippet over its own video, softmax(scale * q k^T) v, without a T x T matrix in memory.

    Query i of video b sees key j when j < lengths[b] and, with a window, abs(i - j) <= window.

    Args:
        q: queries ``[B, H, T, D]``, D contiguous, any other strides (views of a packed projection are not
            copied). float32 or float64 on the CPU, any D; float32, float16 or bfloat16 on CUDA, D <= 128.
        k: keys, with the shape, dtype and device of q.
        v: values, with the shape, dtype and device of q.
        lengths: snippets in each video, int64 ``[B]`` on q's device; None: all T. Rows from ``lengths[b]`` on
            are never read, so they may contain anything. A length outside 0..T is an error on the CPU. On CUDA
            it is clamped, because a check would make the host wait.
        window: how many snippets a query sees to each side; None: all, 0: itself only.
        scale: factor of the scores; None: 1 / sqrt(D).

    Returns:
        ``[B, H, T, D]``, contiguous; zeros (and no gradient) in rows from ``lengths[b]`` on.

    Raises:
        ValueError: a wrong shape, dtype, device or stride of an argument, a negative window, or a scale that is
            not finite.
        RuntimeError: a length outside 0..T (CPU); differentiating twice.

    ``torch.ops.wtal.temporal_attention`` also returns the log-sum-exp ``[B, H, T]`` (float32, float64 for
    float64; zero from ``lengths[b]`` on), which is differentiable too. On one machine the results are bitwise
    equal in every run, with any number of threads. Scheme: Dao et al., "FlashAttention" (NeurIPS 2022), section 3.
    """
    _check(q, k, v, lengths, window, scale)
    if scale is None:
        scale = 1.0 / math.sqrt(q.shape[3])
    out, _ = torch.ops.wtal.temporal_attention(q, k, v, lengths, window, scale)
    return out


def temporal_attention_packed(
    qkv: Tensor, lengths: Tensor | None = None, window: int | None = None, scale: float | None = None
) -> Tensor:
    """:func:`temporal_attention` on a packed projection, the output of a linear layer, without transpose or copy.

    Args:
        qkv: ``[B, T, 3, H, D]``: queries, keys and values of each snippet, D contiguous, any other strides. Dtypes
            and D as for :func:`temporal_attention`; the gradient is packed in the same way.
        lengths: snippets in each video, int64 ``[B]`` on qkv's device; None: all T.
        window: how many snippets a query sees to each side; None: all, 0: itself only.
        scale: factor of the scores; None: 1 / sqrt(D).

    Returns:
        ``[B, T, H, D]``, contiguous, so ``.flatten(2)`` copies nothing; zeros in rows from ``lengths[b]`` on.

    Raises:
        ValueError: a wrong shape, dtype, device or stride of an argument, a negative window, or a scale that is
            not finite.
        RuntimeError: a length outside 0..T (CPU); differentiating twice.
    """
    if qkv.dim() != 5 or qkv.shape[2] != 3 or qkv.shape[4] < 1:
        raise ValueError(f"qkv has shape {list(qkv.shape)}, expected [B, T, 3, H, D] with D >= 1")
    _check_tensor("qkv", qkv)
    _check_per_video("lengths", lengths, len(qkv), "qkv", qkv)
    _check_options(window, scale)
    if scale is None:
        scale = 1.0 / math.sqrt(qkv.shape[4])
    out, _ = torch.ops.wtal.temporal_attention_packed(qkv, lengths, window, scale)
    return out


def temporal_attention_rows(
    qkv: Tensor, starts: Tensor, lengths: Tensor, window: int | None = None, scale: float | None = None
) -> Tensor:
    """:func:`temporal_attention` on rows without padding: the snippets of all videos one after another.

    Video b has the rows ``starts[b]`` .. ``starts[b] + lengths[b]``. Before, between and after the videos there may be
    rows that belong to no video; attention ignores them.

    Args:
        qkv: ``[R, 3, H, D]``: queries, keys and values of each row, D contiguous, any other strides. Dtypes and D as
            for :func:`temporal_attention`.
        starts: first row of each video, int64 ``[B]`` on qkv's device, ascending: a video begins at or after the end of
            the previous one, even if its length is 0. Anything else (also overlapping videos) is an error on the CPU.
            On CUDA the values are not checked, because a check would make the host wait. With wrong values the
            result is undefined, but memory access stays within the R rows.
        lengths: rows of each video, int64 ``[B]`` on qkv's device; a video that ends beyond R is an error on the CPU
            and is cut on CUDA.
        window: how many rows a query sees to each side; None: all of its video, 0: itself only.
        scale: factor of the scores; None: 1 / sqrt(D).

    Returns:
        ``[R, H, D]``, contiguous, so ``.flatten(1)`` copies nothing; zeros (and no gradient) in rows that belong to no
        video.

    Raises:
        ValueError: a wrong shape, dtype, device or stride of an argument, a negative window, or a scale that is
            not finite.
        RuntimeError: videos that overlap, are out of order or leave the R rows (CPU); differentiating twice.

    ``torch.ops.wtal.temporal_attention_rows`` also returns the log-sum-exp ``[H, R]``. For each video the result is
    bitwise equal to that of :func:`temporal_attention_packed` on a padded batch.
    """
    if qkv.dim() != 4 or qkv.shape[1] != 3 or qkv.shape[3] < 1:
        raise ValueError(f"qkv has shape {list(qkv.shape)}, expected [R, 3, H, D] with D >= 1")
    _check_tensor("qkv", qkv)
    if starts.dim() != 1:
        raise ValueError(f"starts has shape {list(starts.shape)} and dtype {starts.dtype}, expected int64 [B]")
    for name, tensor in (("starts", starts), ("lengths", lengths)):
        _check_per_video(name, tensor, len(starts), "qkv", qkv)
    _check_options(window, scale)
    if scale is None:
        scale = 1.0 / math.sqrt(qkv.shape[3])
    out, _ = torch.ops.wtal.temporal_attention_rows(qkv, starts, lengths, window, scale)
    return out


def _check(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, window: int | None, scale: float | None) -> None:
    """Check the arguments, with messages for the caller; the kernels check again what their memory accesses need."""
    if q.dim() != 4 or q.shape[3] < 1:
        raise ValueError(f"q has shape {list(q.shape)}, expected [B, H, T, D] with D >= 1")
    for name, tensor in (("k", k), ("v", v)):
        if tensor.shape != q.shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)}, expected q's shape {list(q.shape)}")
        if tensor.dtype != q.dtype:
            raise ValueError(f"{name} has dtype {tensor.dtype}, expected q's dtype {q.dtype}")
        if tensor.device != q.device:
            raise ValueError(f"{name} is on {tensor.device}, expected q's device {q.device}")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        _check_tensor(name, tensor)
    _check_per_video("lengths", lengths, len(q), "q", q)
    _check_options(window, scale)


def _check_tensor(name: str, tensor: Tensor) -> None:
    """Check that the device has kernels for the dtype and the head size, and that D is contiguous."""
    device, dim = tensor.device.type, tensor.shape[-1]
    allowed = _DTYPES.get(device)
    if allowed is not None and tensor.dtype not in allowed:
        raise ValueError(f"{name} has dtype {tensor.dtype}, expected one of {allowed} on {device}")
    if device == "cuda" and dim > 128:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, expected D <= 128 on CUDA")
    if dim > 1 and tensor.stride(-1) != 1:
        raise ValueError(f"{name} has strides {tensor.stride()}, expected D to be contiguous (.contiguous())")


def _check_per_video(name: str, tensor: Tensor | None, videos: int, of: str, like: Tensor) -> None:
    """Check for int64 ``[videos]`` on the device of ``like``; ``of`` is the name of ``like`` in messages."""
    if tensor is None:
        return
    if tensor.dim() != 1 or tensor.shape[0] != videos or tensor.dtype != torch.int64:
        got = f"shape {list(tensor.shape)} and dtype {tensor.dtype}"
        raise ValueError(f"{name} has {got}, expected int64 [B] = [{videos}]")
    if tensor.device != like.device:
        raise ValueError(f"{name} is on {tensor.device}, expected {of}'s device {like.device}")


def _check_options(window: int | None, scale: float | None) -> None:
    if window is not None and window < 0:
        raise ValueError(f"window is {window}, expected a number of snippets >= 0, or None")
    if scale is not None and not -math.inf < scale < math.inf:
        raise ValueError(f"scale is {scale}, expected a finite number, or None")


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


@torch.library.register_fake("wtal::temporal_attention_packed")
def _fake_packed(qkv: Tensor, lengths: Tensor | None, window: int | None, scale: float) -> tuple[Tensor, Tensor]:
    batch, total, _, heads, dim = qkv.shape
    precise = torch.float64 if qkv.dtype == torch.float64 else torch.float32
    return qkv.new_empty((batch, total, heads, dim)), qkv.new_empty((batch, heads, total), dtype=precise)


@torch.library.register_fake("wtal::temporal_attention_packed_backward")
def _fake_packed_backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
    lengths: Tensor | None,
    window: int | None,
    scale: float,
) -> Tensor:
    return qkv.new_empty(qkv.shape)


@torch.library.register_fake("wtal::temporal_attention_rows")
def _fake_rows(qkv: Tensor, starts: Tensor, lengths: Tensor, window: int | None, scale: float) -> tuple[Tensor, Tensor]:
    rows, _, heads, dim = qkv.shape
    precise = torch.float64 if qkv.dtype == torch.float64 else torch.float32
    return qkv.new_empty((rows, heads, dim)), qkv.new_empty((heads, rows), dtype=precise)


@torch.library.register_fake("wtal::temporal_attention_rows_backward")
def _fake_rows_backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
    starts: Tensor,
    lengths: Tensor,
    window: int | None,
    scale: float,
) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.window, ctx.scale = inputs  # q, k, v or qkv, starts of rows, and lengths
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)  # lse is rarely used, so do not make zeros for its gradient


def _backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    *projections, lengths, out, lse = ctx.saved_tensors
    missing = (None, None, None)  # lengths, window, scale have no gradient
    if grad_out is None and grad_lse is None:
        return *(None for _ in projections), *missing
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    rest = (*projections, out, lse, lengths, ctx.window, ctx.scale)
    if len(projections) == 1:
        return torch.ops.wtal.temporal_attention_packed_backward(grad_out, grad_lse, *rest), *missing
    return *torch.ops.wtal.temporal_attention_backward(grad_out, grad_lse, *rest), *missing


def _rows_backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    qkv, starts, lengths, out, lse = ctx.saved_tensors
    if grad_out is None and grad_lse is None:
        return None, None, None, None, None
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    grad = torch.ops.wtal.temporal_attention_rows_backward(
        grad_out, grad_lse, qkv, out, lse, starts, lengths, ctx.window, ctx.scale
    )
    return grad, None, None, None, None


def _double_backward(ctx: Any, *grads: Tensor | None) -> None:
    raise RuntimeError(
        "temporal_attention cannot be differentiated twice: its gradients are native code without a formula "
        "of their own (write the attention in plain PyTorch where a second derivative is needed)"
    )


for _form, _formula in {"": _backward, "_packed": _backward, "_rows": _rows_backward}.items():
    torch.library.register_autograd(f"wtal::temporal_attention{_form}", _formula, setup_context=_setup_context)
    torch.library.register_autograd(f"wtal::temporal_attention{_form}_backward", _double_backward)
