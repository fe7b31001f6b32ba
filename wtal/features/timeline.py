"""A video's frames in display order onto a fixed rate, and what is found out of the file on the way.

A frame is anything with PyAV's ``pts``, ``time_base`` and ``duration``: a picture, or a packet that stands for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Generic, TypeVar

from wtal.errors import WtalError
from wtal.features.clock import Clock, Resampler
from wtal.features.length import Extent, Gaps, check_whole, declared_seconds, last_length, stated_length, tolerance

Frame = TypeVar("Frame")

_FILLED = Fraction(1, 10)  # of a video's frames that may stand in for ones that damage took


@dataclass
class Facts:
    """What was found in a video file.

    Attributes:
        codec: e.g. ``"h264"``.
        width: in pixels, as stored.
        height: likewise.
        fps: the source's average frames a second.
        source_frames: how many frames there are in the file, as far as it can be decoded.
        frames: how many came out at the fixed rate.
        seconds: from the first frame to the end of the last.
        damaged_packets: how many were marked as damaged, the decoder refused, or became a frame that is damaged.
        filled_frames: how many of ``frames`` stand in for ones that damage took: the frame before, again.
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


class Timeline(Generic[Frame]):
    """The frames of one file as they are at a fixed rate.

    Args:
        container: an open file.
        stream: its video.
        fps: frames a second that come out.

    Attributes:
        facts: complete after :meth:`finish`.
        extent: to be told of every packet of the file.
        second: of the last frame.
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
        self._clock = Clock(self._nominal, self._declared)
        self._gaps = Gaps()
        self._resampler: Resampler[Frame] = Resampler(fps)
        self._last: Any = None

    def push(self, frame: Any) -> Iterator[Frame]:
        """The next frame; yields what was on screen before it, as often as that was on."""
        before = self.second
        self.second = self._clock.read(None if frame.pts is None else frame.pts * frame.time_base)
        if self._last is not None:
            self._gaps.add(self.second - before, stated_length(self._last, self._nominal))
        self._last = frame
        self.facts.source_frames += 1
        yield from self._counted(self._resampler.push(self.second, frame))

    def finish(self, allow_truncated: bool) -> Iterator[Frame]:
        """No further frame; yields the last one, as often as it is on.

        Raises:
            WtalError: there was none; or, unless ``allow_truncated``, the file ends early or has lost many.
        """
        if self._last is None:
            raise WtalError("not one frame could be decoded")
        facts, declared, nominal = self.facts, self._declared, self._nominal
        end = self.second + last_length(self._last, nominal, self.second, declared)
        if not allow_truncated:
            check_whole(self._container, self._stream, end, declared, nominal, self.extent)
        yield from self._counted(self._resampler.finish(end))
        facts.seconds = round(float(end), 6)
        # Without damage, a gap is a frame that was meant to be on for so long: a variable frame rate.
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
