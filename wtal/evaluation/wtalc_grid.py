"""The grid of 25 fps, 16-frame snippets on which W-TALC and its descendants evaluate."""

from __future__ import annotations

import numpy as np

DECIMALS = 9
"""Places to which a position is rounded: the seconds of a detection made on the grid are not exact in binary."""


def positions(seconds: np.ndarray) -> np.ndarray:
    """Seconds in units of snippets, float64 of the same shape. A position on the grid is a whole number."""
    return np.round(np.asarray(seconds, dtype=np.float64) * 25 / 16, DECIMALS)


def on_grid(seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ground truth ``[N, 2]`` as whole snippets, ``round(s * 25 / 16)`` with halves to even, and which are empty."""
    rounded = np.round(np.asarray(seconds, dtype=np.float64) * 25 / 16)
    return rounded, rounded[:, 0] == rounded[:, 1]


def meets(seconds: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Which detections share a snippet with an ambiguous interval of their video, by CO2-Net's and P-MIL's rule.

    A detection has the snippets ``range(int(start), int(end))``, an interval ``range(round(a), round(b))``.

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
