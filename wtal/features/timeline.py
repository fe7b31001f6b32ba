"""The time line of a video: from source frames in display order to frames at a fixed rate, and facts about the file.

A frame is any object with PyAV's attributes ``pts``, ``time_base`` and ``duration``: a decoded frame, or the packet of
a frame that is not decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Generic, TypeVar

from wtal.errors import WtalError
from wtal.features.resampling import MonotonicClock, Resampler
from wtal.features.video_length import (
    Extent,
    Gaps,
    declared_seconds,
    last_length,
    missing_end,
    stated_length,
    tolerance,
)

Frame = TypeVar("Frame")

_FILLED = Fraction(1, 10)  # the largest tolerated share of frames that replace lost ones


@dataclass
class Facts:
    """Facts about a video file.

    Attributes:
        codec: the name of the codec, e.g. ``"h264"``.
        width: width of the stored frames in pixels.
        height: height of the stored frames in pixels.
        fps: the average rate of the source in frames per second.
        source_frames: the number of frames in the file that can be decoded.
        frames: the number of output frames at the fixed rate.
        seconds: time from the first frame to the end of the last frame.
        damaged_packets: the number of packets that are marked as damaged, that the decoder rejects, or whose frame is
            damaged.
        filled_frames: the number of output frames that replace lost frames; each repeats the frame before.
        missing_seconds: what a truncated file lacks of the length that it declares; 0 of any other.
    """

    codec: str
    width: int
    height: int
    fps: float
    source_frames: int = 0
    frames: int = 0
    seconds: float = 0.0
    damaged_packets: int = 0
    filled_frames: int = 0
    missing_seconds: float = 0.0


class Timeline(Generic[Frame]):
    """Converts the frames of one file to a fixed rate, and collects facts about the file.

    Args:
        container: the open file.
        stream: its video stream.
        fps: output frames per second.

    Attributes:
        facts: facts about the file; complete after :meth:`finish`.
        extent: the time span of the packets. The caller must add every packet of the file.
        second: the time of the last frame in seconds.
    """

    def __init__(self, container: Any, stream: Any, fps: Fraction) -> None:
        context = stream.codec_context
        rate = Fraction(stream.average_rate or stream.guessed_rate or fps)
        self.facts = Facts(context.name, context.width, context.height, round(float(rate), 6))
        self.extent = Extent()
        self.second = Fraction(0)
        self._container, self._stream, self._fps = container, stream, fps
        self._nominal = 1 / rate
        self._declared = declared_seconds(container, stream)
        self._clock = MonotonicClock(self._nominal, self._declared)
        self._gaps = Gaps()
        self._resampler: Resampler[Frame] = Resampler(fps)
        self._last: Any = None

    def push(self, frame: Any) -> Iterator[Frame]:
        """Add the next source frame; yields the frame before it once per output frame."""
        before = self.second
        self.second = self._clock.read(None if frame.pts is None else frame.pts * frame.time_base)
        if self._last is not None:
            self._gaps.add(self.second - before, stated_length(self._last, self._nominal))
        self._last = frame
        self.facts.source_frames += 1
        yield from self._counted(self._resampler.push(self.second, frame))

    def finish(self, allow_truncated: bool) -> Iterator[Frame]:
        """Call this after the last source frame; yields the last frame once per output frame.

        Raises:
            WtalError: no frame was decoded. Or, unless ``allow_truncated``: the file is truncated, or has lost more
                than a tenth of its frames.
        """
        if self._last is None:
            raise WtalError("not one frame could be decoded")
        facts, declared, nominal = self.facts, self._declared, self._nominal
        end = self.second + last_length(self._last, nominal, self.second, declared)
        if short := missing_end(self._container, self._stream, end, declared, nominal, self.extent):
            has, wants = map(float, short)
            if not allow_truncated:
                raise WtalError(
                    f"truncated: {has:.1f} s of {wants:.1f} s could be decoded; --allow-truncated takes what is there"
                )
            facts.missing_seconds = round(wants - has, 6)
        yield from self._counted(self._resampler.finish(end))
        facts.seconds = round(float(end), 6)
        # In an intact file a gap is no damage: the frame rate is variable, and the frame is meant to be shown so long.
        if facts.damaged_packets or (declared is not None and end > declared + tolerance(declared, nominal)):
            facts.filled_frames = round(self._gaps.seconds() * self._fps)
        if facts.filled_frames > _FILLED * facts.frames and not allow_truncated:
            raise WtalError(
                f"damaged: {facts.filled_frames} of {facts.frames} frames are lost; --allow-truncated puts the "
                "frame before in their place"
            )

    def _counted(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            self.facts.frames += 1
            yield frame
