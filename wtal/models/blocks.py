"""What both branches share: masking by length, the Transformer block, the pyramid's down- and upsampling.

Everywhere ``lengths`` ``[B]`` int64 counts the valid snippets of each video; what lies beyond is padding. A
branch cuts its batch to the longest video first (:func:`trim`), so that the amount of padding cannot change a
single bit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.errors import WtalError
from wtal.ops.attention import temporal_attention_packed


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """Which snippets are no padding: ``[B, size]`` bool."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def longest(x: Tensor, lengths: Tensor) -> int:
    """The length of the longest video, at least 1; one transfer from the device.

    Raises:
        ValueError: lengths are not ``[B]`` int64, or not within 0..T of x ``[B, T, ...]``.
    """
    if lengths.dtype != torch.int64 or lengths.shape != x.shape[:1] or x.ndim < 2:
        raise ValueError(
            f"lengths has shape {tuple(lengths.shape)} and dtype {lengths.dtype}; expected int64 "
            f"[{x.shape[0] if x.ndim else ''}], one length a video of the batch {tuple(x.shape)}"
        )
    if lengths.numel() == 0 or x.shape[1] == 0:
        raise ValueError(f"the batch has shape {tuple(x.shape)}; expected at least one video and one snippet")
    low, high = torch.stack(torch.aminmax(lengths)).tolist()
    if low < 0 or high > x.shape[1]:
        raise ValueError(f"lengths range from {low} to {high}; expected 0 to {x.shape[1]}, the size of the batch")
    return max(int(high), 1)


def trim(x: Tensor, lengths: Tensor) -> Tensor:
    """Cuts ``[B, T, ...]`` to the longest video, zeros beyond each length whatever was there (NaN too)."""
    size = longest(x, lengths)
    mask = valid_mask(lengths, size)
    return x[:, :size].masked_fill(~mask.view(*mask.shape, *[1] * (x.ndim - 2)), 0)


def restore(x: Tensor, size: int) -> Tensor:
    """The reverse of :func:`trim`: ``[B, T', C]`` to ``[B, size, C]`` with zeros at the end."""
    return F.pad(x, (0, 0, 0, size - x.shape[1]))


def video_logits(logits: Tensor, lengths: Tensor, divisor: int) -> Tensor:
    """Video-level class logits: the mean of each class's top ``max(1, length // divisor)`` snippet logits.

    Args:
        logits: ``[B, T, C]``.
        lengths: ``[B]`` int64.
        divisor: an eighth of the snippets takes part with 8.

    Returns:
        ``[B, C]`` float32 (float64 for float64); zeros for a video of length 0.
    """
    x = trim(at_least_float32(logits), lengths)
    count = (lengths // divisor).clamp(min=1)  # [B]
    hidden = x.masked_fill(~valid_mask(lengths, x.shape[1])[..., None], -torch.inf)
    top = hidden.topk(max(1, x.shape[1] // divisor), dim=1).values  # [B, K, C], descending
    taken = valid_mask(torch.minimum(count, lengths), top.shape[1])
    return top.masked_fill(~taken[..., None], 0).sum(1) / count[:, None]


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()


def pool_pairs(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Average of each two neighbouring valid snippets.

    Args:
        x: ``[B, T, D]`` with zeros beyond each length.
        lengths: ``[B]`` int64.

    Returns:
        ``[B, ceil(T / 2), D]`` and the new lengths ``ceil(lengths / 2)``. The last one of an odd length is a
        single snippet, not its half.
    """
    odd = x.shape[1] % 2
    pairs = F.pad(x, (0, 0, 0, odd)).unflatten(1, (-1, 2))  # [B, T/2, 2, D]
    mask = valid_mask(lengths, x.shape[1] + odd).unflatten(1, (-1, 2))
    return pairs.sum(2) / mask.sum(2, keepdim=True).clamp(min=1), (lengths + 1) // 2


def upsample_pairs(x: Tensor, lengths: Tensor, size: int) -> Tensor:
    """Doubles the temporal resolution linearly; the reverse of :func:`pool_pairs` in time.

    A pooled snippet lies in the middle of its pair, so each output is 3/4 of its own pair and 1/4 of the
    neighbouring one. At a video's ends (its own, not the batch's) the neighbour is the pair itself. Written
    with
    shifts: unlike interpolation kernels it has a deterministic backward pass on CUDA.

    Args:
        x: ``[B, T', D]``.
        lengths: ``[B]`` int64, of x, before doubling.
        size: how many snippets to return, at most 2 T'.

    Returns:
        ``[B, size, D]``; what lies beyond twice a length is undefined.
    """
    inner = valid_mask(lengths - 1, x.shape[1])[..., None]  # has a right neighbour
    left = torch.cat([x[:, :1], x[:, :-1]], 1)
    right = torch.where(inner, torch.cat([x[:, 1:], x[:, -1:]], 1), x)
    own = 0.75 * x
    return torch.stack([own + 0.25 * left, own + 0.25 * right], 2).flatten(1, 2)[:, :size]


class TemporalConv(nn.Conv1d):
    """1-D convolution along time that keeps the length and leaves zeros beyond each video's end.

    ``[B, T, D]`` -> ``[B, T, D']``; ``mask`` ``[B, T, 1]`` bool. Without the zeros the bias of one
    convolution would reach a short video's last snippets through the next one.
    """

    def __init__(self, input_dim: int, output_dim: int, kernel_size: int) -> None:
        super().__init__(input_dim, output_dim, kernel_size, padding=kernel_size // 2)
        self.bias: nn.Parameter

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """Convolves x ``[B, T, D]``, zero beyond the mask."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2).masked_fill(~mask, 0)


class TransformerBlock(nn.Module):
    """Pre-LayerNorm multi-head self-attention and MLP, a residual after each: ``[B, T, D]`` -> ``[B, T, D]``.

    Args:
        dim: D.
        heads: attention heads; they divide D.
        mlp_ratio: width of the MLP in units of D.
        dropout: after attention and after the MLP.
        window: attention reaches this many snippets to each side; None is everywhere.
        init_std: weights start at N(0, init_std) and biases at 0; None is PyTorch's default.

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
        if init_std is not None:
            for layer in (self.qkv, self.projection, self.mlp_in, self.mlp_out):
                nn.init.normal_(layer.weight, 0.0, init_std)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Each snippet attends to the valid ones; rows beyond a length are undefined but finite."""
        packed = self.qkv(self.attention_norm(x))  # [B, T, 3 * D]
        if packed.device.type == "cpu":
            packed = at_least_float32(packed)  # the CPU kernel has no half precision
        qkv = packed.unflatten(2, (3, self.heads, -1))  # [B, T, 3, H, D / H]
        attended = temporal_attention_packed(qkv, lengths, self.window).flatten(2)
        x = x + self.dropout(self.projection(attended))
        return x + self.dropout(self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)))))
