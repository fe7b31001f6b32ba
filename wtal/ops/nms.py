"""Soft non-maximum suppression of temporal segments, all groups in one call."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from wtal.ops import _library  # noqa: F401
from wtal.ops._checks import check_device, check_shape, no_gradient


def soft_nms(
    segments: Tensor,
    scores: Tensor,
    offsets: Tensor,
    sigma: float = 0.5,
    iou_threshold: float = 0.5,
    min_score: float = 0.001,
    method: Literal["hard", "linear", "gaussian"] = "gaussian",
    max_per_group: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress overlapping segments within each group, for example each (video, class).

    In each group, repeat: take the segment with the highest score (for equal scores: the lowest index), then lower the
    score of every other segment according to its tIoU with the taken one. Segments whose score falls below
    ``min_score`` are removed. Bodla et al., "Soft-NMS" (ICCV 2017), with the arithmetic of ActionFormer: lengths are
    ``end - start + 1e-6``, and all computations are in the dtype of ``scores``. The results are bitwise equal on every
    device and have no gradient.

    Args:
        segments: (start, end) ``[N, 2]`` in any unit, dtype and device of ``scores``; finite, start <= end.
        scores: ``[N]``, float32 or float64, finite. Segments with scores below ``min_score`` are removed first.
        offsets: int64 ``[G + 1]``: group g holds the rows ``offsets[g]`` to ``offsets[g + 1]``.
        sigma: width of the Gaussian, > 0.
        iou_threshold: minimum tIoU at which ``"hard"`` and ``"linear"`` have an effect, >= 0.
        min_score: segments with a lower score are removed, >= 0.
        method: ``"gaussian"`` multiplies a score by ``exp(-tIoU^2 / sigma)`` at any overlap, ``"linear"`` by
            ``1 - tIoU``; ``"hard"`` removes the segment.
        max_per_group: maximum number of segments taken in a group; ``None``: no limit.

    Returns:
        keep, int64 ``[M]``: rows of the input, by group, then in the order taken (descending score). scores ``[M]``:
        the lowered scores. offsets, int64 ``[G + 1]``: the groups in these outputs.

    Raises:
        ValueError: an argument has a wrong shape, dtype, device or value.
        RuntimeError: offsets are out of order, a value is not finite, or a segment ends before it starts; the error
            names the row.
    """
    check_shape("scores", scores, "[N]", (None,))
    if scores.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"scores has dtype {scores.dtype}, expected torch.float32 or torch.float64")
    check_shape("segments", segments, "[N, 2]", (scores.shape[0], 2), scores.dtype)
    check_device("segments", segments, "scores", scores)
    check_shape("offsets", offsets, "[G + 1]", (None,), torch.int64)
    check_device("offsets", offsets, "scores", scores)
    if offsets.shape[0] == 0:
        raise ValueError("offsets has shape [0], expected [G + 1]: [0] for no group")
    smallest = 2.0**-149 if scores.dtype == torch.float32 else 5e-324
    if not smallest <= sigma < math.inf:
        raise ValueError(f"sigma is {sigma}, expected a number > 0 in {scores.dtype}")
    if not iou_threshold >= 0.0:
        raise ValueError(f"iou_threshold is {iou_threshold}, expected a number >= 0")
    if not min_score >= 0.0:
        raise ValueError(f"min_score is {min_score}, expected a number >= 0")
    if method not in ("hard", "linear", "gaussian"):
        raise ValueError(f"method is {method!r}, expected 'hard', 'linear' or 'gaussian'")
    if max_per_group is not None and max_per_group < 0:
        raise ValueError(f"max_per_group is {max_per_group}, expected at least 0, or None")
    keep, kept_scores, kept_offsets = torch.ops.wtal.soft_nms(
        segments, scores, offsets, sigma, iou_threshold, min_score, method, max_per_group
    )
    return keep, kept_scores, kept_offsets


@torch.library.register_fake("wtal::soft_nms")
def _(
    segments: Tensor,
    scores: Tensor,
    offsets: Tensor,
    sigma: float,
    iou_threshold: float,
    min_score: float,
    method: str,
    max_per_group: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    kept = torch.library.get_ctx().new_dynamic_size()
    return offsets.new_empty((kept,)), scores.new_empty((kept,)), offsets.new_empty((offsets.shape[0],))


no_gradient("soft_nms")
