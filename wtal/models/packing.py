"""A batch without its padding: the snippets of all videos one after another.

The videos of THUMOS14 have 286 snippets on average and training crops them to 1000, so two thirds of a padded batch
are padding. Every layer works on rows ``[R, D]`` without padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wtal.models.masks import check_lengths, check_range


@dataclass(frozen=True)
class Packing:
    """The row of each snippet of a batch in packed form.

    Between two videos, and after the last, there may be rows that belong to no video (a gap). They are zero unless
    documented otherwise.

    Attributes:
        starts: first row of each video, ``[B]`` int64, ascending.
        lengths: ``[B]`` int64.
        video: ``[N]``, the index of the video of each valid snippet, video by video.
        snippet: ``[N]``, the index of each valid snippet in its video.
        row: ``[N]``, the row of each valid snippet.
        mask: which rows are valid snippets, ``[R, 1]`` bool.
    """

    starts: Tensor
    lengths: Tensor
    video: Tensor
    snippet: Tensor
    row: Tensor
    mask: Tensor

    def pack(self, x: Tensor) -> Tensor:
        """``[B, T, ...]`` to ``[R, ...]``; values beyond each length are not read."""
        return _Move.apply(x.flatten(0, 1), self._cell(x.shape[1]), self._row, len(self.mask))

    def unpack(self, rows: Tensor, size: int) -> Tensor:
        """``[R, ...]`` to ``[B, size, ...]``, zeros beyond each length."""
        moved: Tensor = _Move.apply(rows, self._row, self._cell(size), len(self.lengths) * size)
        return moved.unflatten(0, (-1, size))

    @property
    def _row(self) -> Tensor | None:
        return None if len(self.row) == len(self.mask) else self.row

    def _cell(self, size: int) -> Tensor:
        return self.video * size + self.snippet


class _Move(torch.autograd.Function):
    """Copies selected rows to given positions, with zeros elsewhere; the backward pass copies in the other direction.

    Indexing gives the same result, but its backward pass adds row by row because two rows could have one position.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, source: Tensor | None, target: Tensor | None, count: int) -> Tensor:
        """``rows[source]`` at ``target`` of ``count`` rows; None stands for all rows in order."""
        ctx.save_for_backward(source, target)
        ctx.count = len(rows)
        taken = rows if source is None else rows.index_select(0, source)
        return taken if target is None else rows.new_zeros(count, *rows.shape[1:]).index_copy_(0, target, taken)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Copies the gradients back to the source rows."""
        source, target = ctx.saved_tensors
        return _Move.apply(grads[0], target, source, ctx.count), None, None, None


def packings(x: Tensor, lengths: Tensor, levels: int, gap: bool) -> list[Packing]:
    """Packings of a batch at temporal strides 1, 2, 4, ...; each row covers two rows of the previous level.

    Args:
        x: ``[B, T, ...]``.
        lengths: ``[B]`` int64.
        levels: the number of packings.
        gap: leave at least one row between two videos and after the last, at every level, so that no convolution
            and no interpolation reaches from one video to the next.

    Raises:
        ValueError: lengths are not ``[B]`` int64, or not within 0..T.
    """
    check_lengths(x, lengths)
    coarsest = 2 ** (levels - 1)
    spans = -(-lengths // coarsest) + int(gap)  # rows of the coarsest level
    each = [-(-lengths // 2**level) for level in range(levels)]
    sums = [*torch.aminmax(lengths), spans.sum(), *(one.sum() for one in each)]
    low, high, rows, *counts = torch.stack(sums).tolist()  # one transfer from the device
    check_range(low, high, x.shape[1])
    starts = spans.cumsum(0) - spans
    found = []
    for level, (here, count) in enumerate(zip(each, counts, strict=True)):
        video = torch.repeat_interleave(here, output_size=count)
        snippet = torch.arange(count, device=lengths.device) - (here.cumsum(0) - here)[video]
        first = starts * (coarsest // 2**level)
        row = first[video] + snippet
        mask = torch.zeros(rows * (coarsest // 2**level), 1, dtype=torch.bool, device=lengths.device)
        found.append(Packing(first, here, video, snippet, row, mask.index_fill_(0, row, True)))
    return found
