"""CLIP alone, on the grid of I3D features that are there: the frame in the middle of each snippet, and no other."""

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
    """Snippets of ``window`` frames, ``stride`` apart.

    Attributes:
        stride: frames from one snippet to the next.
        window: frames that one snippet sees.
        rows: how many snippets there are; None: as many as have all of their frames, at least one.
    """

    stride: int
    window: int
    rows: int | None = None

    def centre(self, row: int) -> int:
        """The frame in the middle of a snippet."""
        return row * self.stride + self.window // 2

    def count(self, frames: int) -> int:
        """How many snippets that many frames make."""
        return max(1 + (frames - self.window) // self.stride, 1)

    def wanted(self, frames: int) -> Collection[int]:
        """The frames that :func:`centres` may ask for."""
        rows = self.count(frames) if self.rows is None else self.rows
        # Without a number of rows, a centre is kept before it is known whether its snippet has all of its frames.
        stop = frames if self.rows is None else min(self.centre(rows - 1) + 1, frames)
        past = [frames - 1] if self.centre(rows - 1) >= frames else []
        return [*range(self.centre(0), stop, self.stride), *past]


def centres(pictures: Iterable[Picture], grid: Grid, crop: int) -> Iterator[Piece]:
    """CLIP's pieces of one video, in order; a snippet whose centre lies past the end takes the last frame.

    Args:
        pictures: every frame in order, at least one.
        grid: of the snippets.
        crop: edge of the centre crop in pixels.
    """
    waiting: deque[np.ndarray] = deque()  # centres of snippets that may yet turn out to lack frames
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
