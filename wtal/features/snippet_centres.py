"""CLIP frames for existing I3D features: only the middle frame of each snippet is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from wtal.features.decode import Picture
from wtal.features.flow import centre_crop
from wtal.features.snippets import Piece


@dataclass(frozen=True)
class Grid:
    """The grid of snippets of one video.

    Attributes:
        stride: frames from the start of one snippet to the start of the next.
        window: frames in one snippet.
        rows: the number of snippets. None: all snippets whose frames all exist, at least one.
    """

    stride: int
    window: int
    rows: int | None = None

    def centre(self, row: int) -> int:
        """The index of the frame in the middle of a snippet."""
        return row * self.stride + self.window // 2

    def count(self, frames: int) -> int:
        """The number of snippets in a video of ``frames`` frames; ``rows`` is ignored."""
        return max(1 + (frames - self.window) // self.stride, 1)

    def wanted(self, frames: int) -> Collection[int]:
        """The indices of the frames that :func:`centre_pieces` may decode, in a video of ``frames`` frames."""
        rows = self.count(frames) if self.rows is None else self.rows
        # If rows is None, centre_pieces decodes a centre before it knows whether the snippet's last frame exists.
        stop = frames if self.rows is None else min(self.centre(rows - 1) + 1, frames)
        past = [frames - 1] if self.centre(rows - 1) >= frames else []
        return [*range(self.centre(0), stop, self.stride), *past]


def centre_pieces(pictures: Iterable[Picture], grid: Grid, crop: int) -> Iterator[Piece]:
    """The pieces of one video for CLIP, in order. A snippet whose centre is after the end gets the last frame.

    Args:
        pictures: all frames in order, at least one.
        grid: the grid of the snippets.
        crop: edge of the centre crop in pixels.
    """
    waiting: deque[np.ndarray] = deque()  # centres of snippets whose last frame has not been read yet
    seen = row = 0
    last: Picture | None = None

    def piece(row: int, image: np.ndarray) -> Piece:
        return Piece("clip", row, np.ascontiguousarray(centre_crop(image, crop)))

    for last in pictures:
        if seen == grid.centre(row + len(waiting)) and (grid.rows is None or row < grid.rows):
            waiting.append(last())
        seen += 1
        while waiting and (grid.rows is not None or row * grid.stride + grid.window <= seen):
            yield piece(row, waiting.popleft())
            row += 1
    assert last is not None
    for row in range(row, grid.count(seen) if grid.rows is None else grid.rows):  # noqa: B020
        yield piece(row, waiting.popleft() if waiting else last())
