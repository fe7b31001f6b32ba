"""Proposals from frame scores: maximal runs of snippets above a threshold."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wtal.ops import _library  # noqa: F401
from wtal.ops._checks import check_device, check_shape, no_gradient


def group_proposals(
    scores: Tensor,
    thresholds: Tensor,
    lengths: Tensor | None = None,
    keep: Tensor | None = None,
    min_length: int = 1,
    score: Literal["max", "mean", "oic"] = "max",
    unique: bool = False,
    rescale: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Maximal runs of ``scores[b, :, c] > thresholds[k]``, one row each, in the order of (b, c, k, start).

    NaN is above no threshold. The outputs have no gradient. The results are bitwise equal on every device.

    Args:
        scores: frame scores ``[B, T, C]``, float32 or float64, any strides.
        thresholds: ``[K]``, in any order, on the device of ``scores``; converted to its dtype.
        lengths: snippets in each video, int64 ``[B]``; ``None``: all T. Values beyond a length are ignored. On the CPU
            a length outside 0..T is an error. On CUDA it is clamped, because a check would make the host wait.
        keep: bool ``[B, C]``: the classes to use in each video; ``None``: all.
        min_length: minimum length in snippets; shorter runs are left out.
        score: the score of a proposal: the ``"max"`` of its snippets (the paper's rule), their ``"mean"``, or
            ``"oic"``, the outer-inner contrast: the mean of the run ``[a..b]`` of L snippets minus the mean of
            ``[max(0, int(a - L/4)) .. a-1]`` and ``[b+1 .. min(last, int(b + L/4))]``, 0 for an empty outside. Means
            are summed in float64 and rounded once; a NaN in the outside gives NaN.
        unique: leave out a segment if a lower threshold (or an earlier equal one) gives the same segment for the same
            video and class.
        rescale: first scale every column to [0, 1] over the video's own snippets, ``(s - min) / (max - min)``; a
            constant column becomes zero. A column with NaN gives no proposals.

    Returns:
        segments, int64 ``[P, 2]``: snippet indices, half open. owner, int64 ``[P, 3]``: (b, c, k). score ``[P]``, in
        the dtype of ``scores``.

    Raises:
        ValueError: an argument has a wrong shape, dtype, device or value.
        RuntimeError: a length outside 0..T (CPU).
    """
    check_shape("scores", scores, "[B, T, C]", (None, None, None))
    batch, _, classes = scores.shape
    if scores.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"scores has dtype {scores.dtype}, expected torch.float32 or torch.float64")
    check_shape("thresholds", thresholds, "[K]", (None,))
    check_device("thresholds", thresholds, "scores", scores)
    if lengths is not None:
        check_shape("lengths", lengths, "[B]", (batch,), torch.int64)
        check_device("lengths", lengths, "scores", scores)
    if keep is not None:
        check_shape("keep", keep, "[B, C]", (batch, classes), torch.bool)
        check_device("keep", keep, "scores", scores)
    if min_length < 1:
        raise ValueError(f"min_length is {min_length}, expected at least 1")
    if score not in ("max", "mean", "oic"):
        raise ValueError(f"score is {score!r}, expected 'max', 'mean' or 'oic'")
    segments, owner, value = torch.ops.wtal.group_proposals(
        scores, thresholds.to(scores.dtype), lengths, keep, min_length, score, unique, rescale
    )
    return segments, owner, value


@torch.library.register_fake("wtal::group_proposals")
def _(
    scores: Tensor,
    thresholds: Tensor,
    lengths: Tensor | None,
    keep: Tensor | None,
    min_length: int,
    score: str,
    unique: bool,
    rescale: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    proposals = torch.library.get_ctx().new_dynamic_size()
    return (
        scores.new_empty((proposals, 2), dtype=torch.int64),
        scores.new_empty((proposals, 3), dtype=torch.int64),
        scores.new_empty((proposals,)),
    )


no_gradient("group_proposals")
