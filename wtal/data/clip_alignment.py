"""Resamples CLIP features in time to the I3D grid: one row for each snippet."""

from __future__ import annotations

import numpy as np

from wtal.data.features import finite_rows, open_clip_file
from wtal.data.video import Video


def read_aligned_clip(video: Video, num_snippets: int, start: int = 0, stop: int | None = None) -> np.ndarray:
    """CLIP features at the centres of the snippets ``[start, stop)`` of ``num_snippets``: ``[T, D']`` float32.

    If the rate of the video's CLIP frames is known, row ``k`` is the frame at second ``k / clip_fps``; otherwise
    the rows evenly cover the span of the snippets. Raises like :func:`wtal.data.features.read_features`.
    """
    path, rows = open_clip_file(video)
    snippets = np.arange(*slice(start, stop).indices(num_snippets), dtype=np.float64)
    if video.clip_fps is None:
        positions = even_positions(len(rows), num_snippets)[snippets.astype(np.int64)]
    else:
        positions = video.timebase.center(snippets) * video.clip_fps
    if not len(positions):
        return np.empty((0, rows.shape[1]), dtype=np.float32)
    positions = positions.clip(0, len(rows) - 1)
    first, last = int(positions.min()), int(np.ceil(positions.max()))
    needed = finite_rows(rows[first : last + 1], path, video, first)
    return interpolate(needed, positions - first)


def align(features: np.ndarray, num_snippets: int) -> np.ndarray:
    """Resample rows that evenly cover a video to the centres of its snippets: ``[T', D]`` -> ``[num_snippets, D]``.

    Linear interpolation between the centres of rows, clamped at the ends. If the lengths are equal, the result is
    bitwise equal to the input.
    """
    return interpolate(features, even_positions(len(features), num_snippets))


def even_positions(num_rows: int, num_snippets: int) -> np.ndarray:
    """The row position of each snippet's centre, for rows that cover the same span: ``[num_snippets]`` float64."""
    if num_rows == num_snippets:
        return np.arange(num_rows, dtype=np.float64)
    return (np.arange(num_snippets) + 0.5) * (num_rows / num_snippets) - 0.5


def interpolate(features: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """``features`` ``[T', D]`` at real-valued row ``positions`` ``[N]``, clamped to the rows: ``[N, D]``."""
    positions = positions.clip(0, len(features) - 1)
    below = np.floor(positions).astype(np.int64)
    weight = (positions - below).astype(features.dtype)[:, None]
    if not weight.any():
        return features[below]
    above = np.minimum(below + 1, len(features) - 1)
    return features[below] * (1 - weight) + features[above] * weight
