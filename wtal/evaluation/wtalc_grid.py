"""The grid of 16-frame snippets at 25 fps, on which W-TALC and the methods based on it evaluate."""

from __future__ import annotations

import numpy as np

DECIMALS = 9
"""Decimals to which positions are rounded, because the seconds of a detection on the grid are not exact in binary."""


def positions(seconds: np.ndarray) -> np.ndarray:
    """Converts seconds to snippets, float64 of the same shape. A position on the grid is a whole number."""
    return np.round(np.asarray(seconds, dtype=np.float64) * 25 / 16, DECIMALS)


def on_grid(seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds ground truth ``[N, 2]`` in seconds to whole snippets, ``round(s * 25 / 16)`` with halves to even.

    Returns:
        the rounded segments, float64 ``[N, 2]``; and whether each is empty, bool ``[N]``.
    """
    rounded = np.round(np.asarray(seconds, dtype=np.float64) * 25 / 16)
    return rounded, rounded[:, 0] == rounded[:, 1]


def meets(seconds: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Whether each detection shares a snippet with an ambiguous interval, by the rule of CO2-Net and P-MIL.

    In units of snippets, a detection covers ``range(int(start), int(end))`` and an interval covers
    ``range(round(a), round(b))``.

    Args:
        seconds: detections ``[N, 2]``.
        intervals: ambiguous intervals of the same video ``[M, 2]``, in seconds.

    Returns:
        bool ``[N]``.
    """
    have, theirs = np.trunc(positions(seconds)), on_grid(intervals)[0]
    first = np.maximum(have[:, None, 0], theirs[None, :, 0])
    last = np.minimum(have[:, None, 1], theirs[None, :, 1])
    met: np.ndarray = (first < last).any(axis=1)
    return met
