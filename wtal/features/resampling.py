"""Resampling to a fixed frame rate: repaired time stamps, and the source frame for each output frame."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Generic, TypeVar

from wtal.errors import WtalError

Frame = TypeVar("Frame")

_RESTART = 1  # seconds: a larger step back in time is a restart of the time stamps, a smaller one is jitter
_BEYOND = 10  # seconds: a time stamp later than this after the declared end is an error
_LONGEST_GAP = 600  # seconds between two frames that are allowed if the container declares no end


class MonotonicClock:
    """Seconds since the first frame, never decreasing; time stamps may be missing, negative or restart.

    Args:
        nominal: seconds between two frames, used if a time stamp is missing.
        declared: the length of the video in seconds according to its container; None if it declares none.
    """

    def __init__(self, nominal: Fraction, declared: Fraction | None) -> None:
        self._nominal = nominal
        self._declared = declared
        self._origin: Fraction | None = None
        self._last: Fraction | None = None

    def read(self, stamp: Fraction | None) -> Fraction:
        """The time in seconds of the next frame in display order.

        Args:
            stamp: its time stamp in seconds; None if it has none.

        Raises:
            WtalError: the time is far after the declared end. If no end is declared: the time is more than ten minutes
                after the frame before.
        """
        if self._last is None:
            self._origin, self._last = stamp, Fraction(0)
            return self._last
        if stamp is None:
            second = self._last + self._nominal
        elif self._origin is None:
            second = self._last + self._nominal
            self._origin = stamp - second
        else:
            second = stamp - self._origin
            if second < self._last - _RESTART:
                second = self._last + self._nominal
                self._origin = stamp - second
        second = max(second, self._last)
        limit = self._last + _LONGEST_GAP if self._declared is None else self._declared + _BEYOND
        if second > max(limit, self._last + self._nominal):
            length = "an unknown length" if self._declared is None else f"{float(self._declared):.1f} s"
            raise WtalError(
                f"time stamps jump from {float(self._last):.1f} s to {float(second):.1f} s in a video of {length}"
            )
        self._last = second
        return second


class Resampler(Generic[Frame]):
    """Frames at a fixed rate. Output ``n`` is the last frame whose rounded time is at most ``n / fps``.

    Times are rounded to multiples of ``1 / fps``. FFmpeg's fps filter has the same rule. A source with the same rate is
    not changed, if its time stamps jitter by less than half a frame.

    Args:
        fps: output frames per second.
    """

    def __init__(self, fps: Fraction) -> None:
        self._fps = fps
        self._held: Frame | None = None
        self._next = 0

    def push(self, second: Fraction, frame: Frame) -> Iterator[Frame]:
        """Add the next source frame, shown from ``second`` on; yields the frame before it once per output frame."""
        index = math.floor(second * self._fps + Fraction(1, 2))
        if self._held is not None:
            yield from self._repeat(index)
        self._held = frame

    def finish(self, end: Fraction) -> Iterator[Frame]:
        """Yield the last frame until second ``end``. In total there are ``end * fps`` output frames, at least one."""
        if self._held is not None:
            yield from self._repeat(max(math.floor(end * self._fps + Fraction(1, 2)), 1))

    def _repeat(self, until: int) -> Iterator[Frame]:
        assert self._held is not None
        while self._next < until:
            self._next += 1
            yield self._held
