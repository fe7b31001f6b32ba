"""Video files into frames: streamed, at a fixed rate by time stamp, upright, with a given short side."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wtal.errors import WtalError
from wtal.features.clock import Clock, Resampler
from wtal.features.length import Extent, Gaps, check_whole, declared_seconds, last_length, stated_length, tolerance

if TYPE_CHECKING:
    import av

_CODEC_THREADS = 4
_OLDEST_AV = 17  # the first whose reformat() takes a number of threads
_FILLED = Fraction(1, 10)  # of a video's frames that may stand in for ones that damage took


def import_av() -> Any:
    """PyAV, which only extraction needs.

    Raises:
        WtalError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise WtalError(f"reading videos needs PyAV ({error}); expected pip install 'wtal[extract]'") from None
    if int(av.__version__.split(".")[0]) < _OLDEST_AV:
        raise WtalError(
            f"PyAV {av.__version__} is too old, expected {_OLDEST_AV} or later: pip install 'wtal[extract]'"
        )
    return av


@dataclass
class Facts:
    """What was found in a video file.

    Attributes:
        codec: e.g. ``"h264"``.
        width: in pixels, as stored.
        height: likewise.
        fps: the source's average frames a second.
        source_frames: how many frames were decoded.
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


class VideoReader:
    """Iterates once over the frames of a video file: uint8 RGB ``[height, width, 3]``, all of one size.

    Second 0 is the first frame. Pixels are taken to be square. After the iteration ``facts`` is complete.

    Args:
        path: the file.
        fps: frames a second that come out.
        short_side: their shorter edge in pixels; the other keeps the proportion.
        allow_truncated: take what is there of a file that ends early or has lost many frames.

    Raises:
        WtalError: (while iterating) the file cannot be read, has no video, is truncated, has lost more than a tenth
            of its frames, changes its size, or its time stamps make no sense. The message does not name the file.
    """

    def __init__(self, path: Path, fps: Fraction, short_side: int, allow_truncated: bool = False) -> None:
        self._path = path
        self._fps = fps
        self._short_side = short_side
        self._allow_truncated = allow_truncated
        self._facts: Facts | None = None

    @property
    def facts(self) -> Facts:
        """What was found; there once the first frame is."""
        assert self._facts is not None
        return self._facts

    def __iter__(self) -> Iterator[np.ndarray]:
        av = import_av()
        try:
            yield from self._frames()
        except av.FFmpegError as error:
            raise WtalError(f"cannot be decoded ({error.strerror or error})") from None

    def _frames(self) -> Iterator[np.ndarray]:
        with _opened(self._path) as container:
            stream = _video_stream(container)
            context = stream.codec_context
            context.thread_type = "AUTO"
            context.thread_count = _CODEC_THREADS
            rate = Fraction(stream.average_rate or stream.guessed_rate or self._fps)
            nominal = 1 / rate
            self._facts = facts = Facts(context.name, context.width, context.height, round(float(rate), 6))
            declared = declared_seconds(container, stream)
            clock = Clock(nominal, declared)
            extent = Extent()
            gaps = Gaps()
            resampler: Resampler[av.VideoFrame] = Resampler(self._fps)
            shape: tuple[int, int, tuple[int, ...]] | None = None
            second, last = Fraction(0), None
            shown: tuple[Any, np.ndarray] | None = None

            def picture(frame: Any) -> np.ndarray:
                nonlocal shown
                if shown is None or shown[0] is not frame:
                    shown = (frame, upright(frame, self._short_side))
                facts.frames += 1
                return shown[1]

            for frame in self._decoded(container, stream, facts, extent):
                before, second = second, clock.read(None if frame.pts is None else frame.pts * frame.time_base)
                if last is not None:
                    gaps.add(second - before, stated_length(last, nominal))
                facts.source_frames += 1
                facts.damaged_packets += frame.is_corrupt
                found = (frame.width, frame.height, _orientation(frame))
                if shape is not None and found != shape:
                    raise WtalError(
                        f"its frames change from {shape[0]}x{shape[1]} to {found[0]}x{found[1]} or turn "
                        f"at {float(second):.2f} s, expected one size"
                    )
                shape, last = found, frame
                for held in resampler.push(second, frame):
                    yield picture(held)
            if last is None:
                raise WtalError("not one frame could be decoded")
            facts.width, facts.height = last.width, last.height
            end = second + last_length(last, nominal, second, declared)
            if not self._allow_truncated:
                check_whole(container, stream, end, declared, nominal, extent)
            for held in resampler.finish(end):
                yield picture(held)
            facts.seconds = round(float(end), 6)
            # Without damage, a gap is a frame that was meant to be on for so long: a variable frame rate.
            if facts.damaged_packets or (declared is not None and end > declared + tolerance(declared, nominal)):
                facts.filled_frames = round(gaps.seconds() * self._fps)
            if facts.filled_frames > _FILLED * facts.frames and not self._allow_truncated:
                raise WtalError(
                    f"damaged: {facts.filled_frames} of {facts.frames} frames are lost; --allow-truncated puts the "
                    "frame before in their place"
                )

    @staticmethod
    def _decoded(container: Any, stream: Any, facts: Facts, extent: Extent) -> Iterator[Any]:
        """Frames in display order, over damaged packets and up to where the file breaks off."""
        av = import_av()
        packets = container.demux()  # sound too: it tells where a file breaks off that states one length for all
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError:
                facts.damaged_packets += 1
                packet = None  # flush: what the decoder holds is good
            if packet is not None:
                extent.add(packet)
                if packet.stream.index != stream.index:
                    continue
                facts.damaged_packets += packet.is_corrupt
            try:
                yield from stream.decode(packet)
            except av.FFmpegError:
                facts.damaged_packets += 1
            if packet is None:
                return


def probe_seconds(path: Path) -> float | None:
    """The length that a file's container states; None where it states none or cannot be read."""
    try:
        with _opened(path) as container:
            declared = declared_seconds(container, _video_stream(container))
    except WtalError:
        return None
    return None if declared is None else float(declared)


def _opened(path: Path) -> Any:
    av = import_av()
    try:
        return av.open(str(path), metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise WtalError(f"cannot be opened as a video ({error.strerror or error})") from None


def _video_stream(container: Any) -> Any:
    """The first that is no cover picture."""
    cover = import_av().stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & cover:
            return stream
    kinds = sorted({stream.type for stream in container.streams}) or ["none"]
    raise WtalError(f"has no video stream (streams: {', '.join(kinds)})")


def upright(frame: Any, short_side: int) -> np.ndarray:
    """A decoded frame as uint8 RGB ``[H, W, 3]``, scaled (bilinear) and turned as its display matrix says."""
    scale = Fraction(short_side, min(frame.width, frame.height))
    width, height = (max(short_side, round(extent * scale)) for extent in (frame.width, frame.height))
    scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="BILINEAR", threads=1)
    image: np.ndarray = scaled.to_ndarray()
    a, b, c, d = _orientation(frame)
    if a == d == 0:
        image, across, down = image.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _orientation(frame: Any) -> tuple[int, ...]:
    """Signs of the display matrix ``x' = a x + c y, y' = b x + d y``, y downwards: ``(a, b, c, d)``."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return (1, 0, 0, 1)
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix)[:36])
    turned = abs(b) + abs(c) > abs(a) + abs(d)  # nothing but quarter turns and mirrors is in use

    def sign(value: int) -> int:
        return -1 if value < 0 else 1

    return (0, sign(b), sign(c), 0) if turned else (sign(a), 0, 0, sign(d))
