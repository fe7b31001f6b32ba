"""The positions of snippets in time: only this module converts snippet indices to seconds and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Number = TypeVar("Number", float, np.ndarray)


@dataclass(frozen=True)
class Timebase:
    """A grid of snippets: snippet ``i`` sees the frames ``[i * stride, i * stride + window)`` at ``fps``.

    Its centre is ``(i * stride + window / 2) / fps`` (ActionFormer's formula). A segment ``[start, end)`` of snippet
    indices reaches from edge to edge, and an edge is half a stride before its snippet's centre. With
    ``stride == window`` (W-TALC, BaSNet: 16 at 25 fps) the edge is ``i * 16 / 25``.

    Attributes:
        fps: frames per second of the frames that the features were computed from.
        stride: frames from one snippet to the next.
        window: number of frames in one snippet.
    """

    fps: float
    stride: float = 16.0
    window: float = 16.0

    def __post_init__(self) -> None:
        for name in ("fps", "stride", "window"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value!r}")

    @property
    def snippets_per_second(self) -> float:
        """Snippets per second."""
        return self.fps / self.stride

    def edge(self, index: Number) -> Number:
        """Second at the boundary between the time of snippet ``index - 1`` and the time of snippet ``index``."""
        return (index * self.stride + 0.5 * (self.window - self.stride)) / self.fps

    def center(self, index: Number) -> Number:
        """Second in the middle of snippet ``index``."""
        return (index * self.stride + 0.5 * self.window) / self.fps

    def position(self, second: Number) -> Number:
        """The inverse of :meth:`edge`, a real number: second ``s`` belongs to snippet ``floor(position(s))``."""
        return (second * self.fps - 0.5 * (self.window - self.stride)) / self.stride
