"""Lengths and masks of a padded batch: ``lengths`` ``[B]`` int64 counts the valid snippets of each video."""

from __future__ import annotations

import torch
from torch import Tensor


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """Which snippets are not padding: ``[B, size]`` bool."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def longest(x: Tensor, lengths: Tensor) -> int:
    """The length of the longest video, at least 1; one transfer from the device.

    Raises:
        ValueError: lengths are not ``[B]`` int64, or not within 0..T of x ``[B, T, ...]``.
    """
    check_lengths(x, lengths)
    low, high = torch.stack(torch.aminmax(lengths)).tolist()
    check_range(low, high, x.shape[1])
    return max(int(high), 1)


def check_lengths(x: Tensor, lengths: Tensor) -> None:
    """Raise ValueError unless lengths are int64 ``[B]`` for x ``[B, T, ...]`` with B and T at least 1."""
    if lengths.dtype != torch.int64 or lengths.shape != x.shape[:1] or x.ndim < 2:
        raise ValueError(
            f"lengths has shape {tuple(lengths.shape)} and dtype {lengths.dtype}; expected int64 "
            f"[{x.shape[0] if x.ndim else ''}], one length a video of the batch {tuple(x.shape)}"
        )
    if lengths.numel() == 0 or x.shape[1] == 0:
        raise ValueError(f"the batch has shape {tuple(x.shape)}; expected at least one video and one snippet")


def check_range(low: int, high: int, size: int) -> None:
    """Raise ValueError unless lengths from ``low`` to ``high`` fit a batch of ``size`` snippets per video."""
    if low < 0 or high > size:
        raise ValueError(f"lengths range from {low} to {high}; expected 0 to {size}, the size of the batch")


def trim(x: Tensor, lengths: Tensor) -> Tensor:
    """Cuts ``[B, T, ...]`` to the longest video and sets everything beyond each length to zero (NaN too)."""
    size = longest(x, lengths)
    mask = valid_mask(lengths, size)
    return x[:, :size].masked_fill(~mask.view(*mask.shape, *[1] * (x.ndim - 2)), 0)


def at_least_float32(x: Tensor) -> Tensor:
    """Converts half precision to float32; float32 and float64 stay unchanged."""
    return x if x.dtype == torch.float64 else x.float()
