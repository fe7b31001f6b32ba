"""Videos of different length in one matrix, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Packed:
    """Snippets of several videos, one video after another.

    Attributes:
        rows: ``[R, D]`` float32.
        lengths: snippets of each video; their sum is R.
    """

    rows: Tensor
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, videos: Sequence[Tensor]) -> Packed:
        """From each video's ``[T, D]``."""
        return cls(torch.cat([*videos]), tuple(len(video) for video in videos))


class PackedConv(nn.Module):
    """A convolution over three snippets that never reaches into the next video: ``[R, D]`` to ``[R, H]``.

    Weights start as those of :class:`torch.nn.Conv1d` do. Zeros stand before the first and behind the last snippet.
    """

    def __init__(self, width: int, out: int, bias: bool = True) -> None:
        super().__init__()
        bound = (3 * width) ** -0.5
        self.weight = nn.Parameter(torch.empty(width, 3 * out).uniform_(-bound, bound))  # before, here, behind
        self.bias = nn.Parameter(torch.empty(out).uniform_(-bound, bound)) if bias else None

    def forward(self, rows: Tensor, lengths: Sequence[int]) -> Tensor:
        ends = torch.tensor(lengths).cumsum(0)
        first, last = rows.new_ones(len(rows), 1), rows.new_ones(len(rows), 1)
        first[0] = 0.0
        first[ends[:-1]] = 0.0
        last[ends - 1] = 0.0
        # Projected first and shifted then: thrice the outputs are fewer numbers than thrice the inputs.
        before, here, behind = (rows @ self.weight).chunk(3, dim=1)
        out = here + first * before.roll(1, 0) + last * behind.roll(-1, 0)
        return out if self.bias is None else out + self.bias


def top_mean(logits: Tensor, lengths: Sequence[int], divisor: float) -> Tensor:
    """The mean of each video's and class's highest ``T / divisor`` snippets: ``[R, C]`` to ``[B, C]``."""
    each = logits.split([*lengths])
    return torch.stack([one.topk(max(1, int(len(one) / divisor)), dim=0).values.mean(0) for one in each])


def weighted_mean(logits: Tensor, weights: Tensor, lengths: Sequence[int]) -> Tensor:
    """The mean of each video's snippets under weights ``[R, 1]``: ``[R, C]`` to ``[B, C]``."""
    each = zip((logits * weights).split([*lengths]), weights.split([*lengths]), strict=True)
    return torch.stack([one.sum(0) / own.sum().clamp(min=1e-6) for one, own in each])


def shares(labels: Tensor) -> Tensor:
    """Labels ``[B, C]`` as a distribution over the classes of each video."""
    return labels / labels.sum(1, keepdim=True)
