"""Matches detections to ground truth: the greedy matching of the official ActivityNet evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from wtal.ops import _library


def match_detections(
    segments: ArrayLike,
    scores: ArrayLike,
    videos: ArrayLike,
    classes: ArrayLike,
    truth_segments: ArrayLike,
    truth_videos: ArrayLike,
    truth_classes: ArrayLike,
    tiou: ArrayLike,
) -> np.ndarray:
    """Match detections to the ground truth of the same video and class, for every tIoU threshold at once.

    The rule is that of ActivityNet's ``eval_detection.py``. Detections are processed by descending score. Each
    detection takes the ground truth with the highest tIoU among those not yet taken at that threshold, if the tIoU is
    at least the threshold. For equal tIoU the highest ground-truth index is taken, as with the official
    ``argsort()[::-1]`` (its sort is stable for up to 16 instances, and in most videos a class has no more). For equal
    scores the lower index comes first; the official code uses an unstable sort. Two segments of length zero have
    tIoU 1 if they are the same point, else 0 (0 / 0 in the official code, which counts as a match).

    Args:
        segments: detections ``[D, 2]``, start and end in the same unit, float64.
        scores: ``[D]``, finite.
        videos: ``[D]`` integers.
        classes: ``[D]`` integers.
        truth_segments: ground truth ``[G, 2]``, in the same unit.
        truth_videos: ``[G]`` integers.
        truth_classes: ``[G]`` integers.
        tiou: thresholds ``[K]``, above 0 and up to 1, in any order.

    Returns:
        int64 ``[K, D]``: index of the ground truth that a detection matches, -1 for a false positive.

    Raises:
        ValueError: names the argument, its shape or value, and what was expected.

    The GIL is released while matching.
    """
    return _library._native.match_detections(
        _array("segments", segments, np.float64),
        _array("scores", scores, np.float64),
        _array("videos", videos, np.int64),
        _array("classes", classes, np.int64),
        _array("truth_segments", truth_segments, np.float64),
        _array("truth_videos", truth_videos, np.int64),
        _array("truth_classes", truth_classes, np.int64),
        _array("tiou", tiou, np.float64),
    )


def _array(name: str, value: ArrayLike, dtype: type[np.generic]) -> np.ndarray:
    """C-contiguous array of the dtype; rejects values that the conversion would change (1.5 as a class, text)."""
    array = np.asarray(value)
    if array.size and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(
            f"match_detections: {name} has dtype {array.dtype} (shape {list(array.shape)}), "
            f"expected {np.dtype(dtype).name}"
        )
    return np.ascontiguousarray(array, dtype=dtype).reshape(array.shape)
