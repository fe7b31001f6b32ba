"""The building blocks of both branches: Transformer block, convolution along time, the pyramid's down- and upsampling.

All of them work on packed rows ``[R, D]`` (:mod:`wtal.models.packing`), so the amount of padding in a batch does not
change the result: it is bitwise equal.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.errors import WtalError
from wtal.models.masks import at_least_float32
from wtal.models.packing import Packing
from wtal.ops.attention import temporal_attention_packed, temporal_attention_rows


def pool_pairs(x: Tensor, mask: Tensor, coarse: Tensor) -> Tensor:
    """Average of the valid rows in each pair of neighbouring rows.

    Args:
        x: ``[R, D]``, R even.
        mask: ``[R, 1]`` bool, which rows are valid.
        coarse: ``[R / 2, 1]`` bool, which results are valid: those with at least one valid row.

    Returns:
        ``[R / 2, D]``, zero where not valid.
    """
    pairs = x.masked_fill(~mask, 0).unflatten(0, (-1, 2)).sum(1)
    count = mask.unflatten(0, (-1, 2)).sum(1).clamp(min=1)
    return (pairs / count).masked_fill(~coarse, 0)


def upsample_pairs(x: Tensor, mask: Tensor) -> Tensor:
    """Doubles the temporal resolution by linear interpolation; the reverse of :func:`pool_pairs` in time.

    A pooled snippet is in the middle of its pair, so each output is 3/4 of its own pair and 1/4 of the neighbouring
    pair. At the ends of a video the neighbour is the pair itself. It is implemented with shifts because, unlike
    interpolation kernels, they have a deterministic backward pass on CUDA.

    Args:
        x: ``[R, D]``; the last row and at least one row between two videos are not valid.
        mask: ``[R, 1]`` bool, which rows are valid.

    Returns:
        ``[2 R, D]``; rows that are not valid are undefined.
    """
    left = torch.where(mask.roll(1, 0), x.roll(1, 0), x)
    right = torch.where(mask.roll(-1, 0), x.roll(-1, 0), x)
    own = 0.75 * x
    return torch.stack([own + 0.25 * left, own + 0.25 * right], 1).flatten(0, 1)


class TemporalConv(nn.Conv1d):
    """1-D convolution along time of packed rows ``[R, D]`` -> ``[R, D']``, zero where ``mask`` ``[R, 1]`` is not set.

    Rows that are not valid must be zero in the input, and there must be ``kernel_size // 2`` of them between two videos
    and after the last. They are zero in the output too: otherwise the bias of one convolution would reach the ends of
    a video through the next convolution.
    """

    def __init__(self, input_dim: int, output_dim: int, kernel_size: int) -> None:
        super().__init__(input_dim, output_dim, kernel_size, padding=kernel_size // 2)
        self.bias: nn.Parameter

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """Convolves."""
        # One product with the weights of all taps; then the result of each tap is shifted in time. The convolution of
        # PyTorch needs time as the last axis and transposes: on the CPU, from 2048 to 512, forward and backward take
        # 1.5 times as long.
        size = self.weight.shape[2]
        taps = F.linear(x, self.weight.permute(2, 0, 1).flatten(0, 1)).chunk(size, 1)
        total: Tensor = self.bias
        for place, tap in enumerate(taps):
            total = total + tap.roll(size // 2 - place, 0)
        return total.masked_fill(~mask, 0)


class TransformerBlock(nn.Module):
    """Pre-LayerNorm multi-head self-attention and MLP, a residual after each.

    Args:
        dim: D.
        heads: attention heads; they divide D.
        mlp_ratio: width of the MLP in units of D.
        dropout: after attention and after the MLP.
        window: attention reaches this many snippets to each side; None: the whole video.
        init_std: weights start at N(0, init_std) and biases at 0; None is PyTorch's default.
        residual_init: initial value of a learned factor per channel that scales each residual (LayerScale, Touvron et
            al., ICCV 2021); None: no scaling.

    Raises:
        WtalError: the heads do not divide D.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float,
        dropout: float = 0.0,
        window: int | None = None,
        init_std: float | None = None,
        residual_init: float | None = None,
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise WtalError(f"{heads} attention heads do not divide a width of {dim}; choose a divisor of {dim}")
        self.heads = heads
        self.window = window
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp_in = nn.Linear(dim, round(mlp_ratio * dim))
        self.mlp_out = nn.Linear(round(mlp_ratio * dim), dim)
        self.dropout = nn.Dropout(dropout)
        self.attention_scale = residual_scale(dim, residual_init)
        self.mlp_scale = residual_scale(dim, residual_init)
        if init_std is not None:
            for layer in (self.qkv, self.projection, self.mlp_in, self.mlp_out):
                nn.init.normal_(layer.weight, 0.0, init_std)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, packing: Packing | None = None) -> Tensor:
        """Each snippet attends to the snippets of its own video.

        Args:
            x: packed rows ``[R, D]``, or ``[B, T, D]`` without padding.
            packing: the packing of the rows; None for ``[B, T, D]``.

        Returns:
            the shape of x; rows outside the videos are undefined but finite.
        """
        projected = self.qkv(self.attention_norm(x))  # [..., 3 * D]
        if projected.device.type == "cpu":
            projected = at_least_float32(projected)  # the CPU kernel has no half precision
        qkv = projected.unflatten(-1, (3, self.heads, -1))  # [..., 3, H, D / H]
        if packing is None:
            attended = temporal_attention_packed(qkv, None, self.window).flatten(2)
        else:
            attended = temporal_attention_rows(qkv, packing.starts, packing.lengths, self.window).flatten(1)
        x = x + self.attention_scale(self.dropout(self.projection(attended)))
        return x + self.mlp_scale(self.dropout(self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x))))))


class ResidualScale(nn.Module):
    """A learned factor per channel with initial value ``start``."""

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((dim,), float(start)))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` -> ``[..., D]``."""
        return x * self.factor


def residual_scale(dim: int, start: float | None) -> nn.Module:
    """The module that scales a residual: the identity if ``start`` is None."""
    return nn.Identity() if start is None else ResidualScale(dim, start)
