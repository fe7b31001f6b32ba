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
    """Suppress overlapping segments within each group, say each (video, class).

    In each group, again and again: take the segment of the highest score (of equal ones: the lowest index), then lower
    the score of every other by its tIoU with the one taken; what falls below ``min_score`` is out. Bodla et al.,
    "Soft-NMS" (ICCV 2017), with the arithmetic of ActionFormer: lengths are ``end - start + 1e-6``, everything in the
    dtype of ``scores``. The results are the same bits on every device, and carry no gradient.

    Args:
        segments: (start, end) ``[N, 2]`` in any unit, dtype and device of ``scores``; finite, start <= end.
        scores: ``[N]``, float32 or float64, finite. Scores below ``min_score`` do not enter.
        offsets: int64 ``[G + 1]``: group g holds the rows ``offsets[g]`` to ``offsets[g + 1]``.
        sigma: of the Gaussian, > 0.
        iou_threshold: tIoU from which ``"hard"`` and ``"linear"`` act, >= 0.
        min_score: see above, >= 0.
        method: a score times ``exp(-tIoU^2 / sigma)`` at any overlap for ``"gaussian"``, times ``1 - tIoU`` for
            ``"linear"``; ``"hard"`` removes.
        max_per_group: stop a group after so many; ``None``: no limit.

    Returns:
        keep, int64 ``[M]``: rows of the input, by group and then in the order taken, which is that of falling score.
        scores ``[M]``: the lowered ones. offsets, int64 ``[G + 1]``: the groups within these outputs.

    Raises:
        ValueError: an argument has a wrong shape, dtype, device or value.
        RuntimeError: offsets out of order, a value that is not finite, a segment that ends before it starts; says
            which row.
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
