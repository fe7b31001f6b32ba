"""Multiple-instance pooling: from snippet logits to video logits, which training has labels for."""

from __future__ import annotations

import torch
from torch import Tensor

from wtal.models.masks import at_least_float32, trim, valid_mask


def video_logits(logits: Tensor, lengths: Tensor, divisor: int) -> Tensor:
    """Video-level class logits: the mean of each class's top ``max(1, length // divisor)`` snippet logits.

    Args:
        logits: ``[B, T, C]``.
        lengths: ``[B]`` int64.
        divisor: with 8, the top eighth of the snippets is averaged.

    Returns:
        ``[B, C]`` float32 (float64 for float64); zeros for a video of length 0.
    """
    x = trim(at_least_float32(logits), lengths)
    count = (lengths // divisor).clamp(min=1)  # [B]
    hidden = x.masked_fill(~valid_mask(lengths, x.shape[1])[..., None], -torch.inf)
    top = hidden.topk(max(1, x.shape[1] // divisor), dim=1).values  # [B, K, C], descending
    taken = valid_mask(torch.minimum(count, lengths), top.shape[1])
    return top.masked_fill(~taken[..., None], 0).sum(1) / count[:, None]
