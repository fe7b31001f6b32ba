"""Time stamps into frames at a fixed rate: which source frame is on screen when, however its stamps behave."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Generic, TypeVar

from wtal.errors import WtalError

Frame = TypeVar("Frame")

_RESTART = 1  # seconds back in time that mean a new clock, not jitter
_BEYOND = 10  # seconds past the declared end that no frame can have
_LONGEST_GAP = 600  # seconds between frames, where no end is declared


class Clock:
    """Seconds since the first frame, never falling, from stamps that may be missing, negative or start over.

    Args:
        nominal: seconds from frame to frame where stamps are missing.
        declared: length in seconds that the container states, None where it does not.
    """

    def __init__(self, nominal: Fraction, declared: Fraction | None) -> None:
        self._nominal = nominal
        self._declared = declared
        self._origin: Fraction | None = None
        self._last: Fraction | None = None

    def read(self, stamp: Fraction | None) -> Fraction:
        """Seconds of the next frame in display order.

        Raises:
            WtalError: the stamp lies far past the declared end, or ten minutes after the last frame.
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
            told = "an unknown length" if self._declared is None else f"{float(self._declared):.1f} s"
            raise WtalError(
                f"time stamps jump from {float(self._last):.1f} s to {float(second):.1f} s in a video of {told}"
            )
        self._last = second
        return second


class Resampler(Generic[Frame]):
    """Frames at a fixed rate: output ``n`` is the last frame whose time rounds to ``n / fps`` or before.

    That is the rule of ffmpeg's fps filter. A source at this very rate passes unchanged, however its stamps jitter
    by less than half a frame.

    Args:
        fps: output frames a second.
    """

    def __init__(self, fps: Fraction) -> None:
        self._fps = fps
        self._held: Frame | None = None
        self._next = 0

    def push(self, second: Fraction, frame: Frame) -> Iterator[Frame]:
        """The next source frame; yields what was on screen before it, as often as that was on."""
        index = math.floor(second * self._fps + Fraction(1, 2))
        if self._held is not None:
            yield from self._repeat(index)
        self._held = frame

    def finish(self, end: Fraction) -> Iterator[Frame]:
        """No further frame, and the last one is on until second ``end``: ``end * fps`` frames in all, at least one."""
        if self._held is not None:
            yield from self._repeat(max(math.floor(end * self._fps + Fraction(1, 2)), 1))

    def _repeat(self, until: int) -> Iterator[Frame]:
        assert self._held is not None
        while self._next < until:
            self._next += 1
            yield self._held
