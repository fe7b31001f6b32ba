"""Video files into frames: streamed, at a fixed rate by time stamp, upright, with a given short side."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from wtal.errors import WtalError
from wtal.features.length import Extent, declared_seconds
from wtal.features.timeline import Facts, Timeline

_CODEC_THREADS = 4
_OLDEST_AV = 17  # the first whose reformat() takes a number of threads


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


Picture = Callable[[], np.ndarray]
"""Makes a decoded frame into uint8 RGB ``[height, width, 3]``, which costs more than many a codec."""


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
        for picture in self.pictures():
            yield picture()

    def pictures(self) -> Iterator[Picture]:
        """The same frames, each made when it is asked for; any number of them may be passed over."""
        try:
            yield from self._frames()
        except import_av().FFmpegError as error:
            raise undecodable(error) from None

    def _frames(self) -> Iterator[Picture]:
        with opened(self._path) as container:
            stream = video_stream(container)
            timeline: Timeline[Any] = Timeline(container, stream, self._fps)
            self._facts = facts = timeline.facts
            shape: tuple[int, int, tuple[int, ...]] | None = None
            pictures = Pictures(self._short_side)
            for frame in self._decoded(container, stream, facts, timeline.extent):
                held = list(timeline.push(frame))
                facts.damaged_packets += frame.is_corrupt
                found = (frame.width, frame.height, orientation(frame))
                if shape is not None and found != shape:
                    raise WtalError(
                        f"its frames change from {shape[0]}x{shape[1]} to {found[0]}x{found[1]} or turn "
                        f"at {float(timeline.second):.2f} s, expected one size"
                    )
                shape = found
                facts.width, facts.height = frame.width, frame.height
                yield from map(pictures.of, held)
            yield from map(pictures.of, timeline.finish(self._allow_truncated))

    @staticmethod
    def _decoded(container: Any, stream: Any, facts: Facts, extent: Extent) -> Iterator[Any]:
        """Frames in display order, over damaged packets and up to where the file breaks off."""
        av = import_av()
        prepare(stream)
        packets = (
            container.demux()
        )  # sound too: it shows where a file breaks off if the container states one length for all streams
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
        with opened(path) as container:
            declared = declared_seconds(container, video_stream(container))
    except WtalError:
        return None
    return None if declared is None else float(declared)


class Pictures:
    """Frames into pictures; one that is shown several times is made once."""

    def __init__(self, short_side: int) -> None:
        self._short_side = short_side
        self._made: tuple[Any, np.ndarray] | None = None

    def of(self, frame: Any) -> Picture:
        """What makes this decoded frame into a picture."""

        def make() -> np.ndarray:
            if self._made is None or self._made[0] is not frame:
                try:
                    self._made = (frame, upright(frame, self._short_side))
                except import_av().FFmpegError as error:
                    raise undecodable(error) from None
            return self._made[1]

        return make


def undecodable(error: Any) -> WtalError:
    """What FFmpeg says of a file, for people."""
    return WtalError(f"cannot be decoded ({error.strerror or error})")


def prepare(stream: Any) -> None:
    """Decode on several threads."""
    stream.codec_context.thread_type = "AUTO"
    stream.codec_context.thread_count = _CODEC_THREADS


def opened(path: Path) -> Any:
    """The container of a video file, a context."""
    av = import_av()
    try:
        return av.open(str(path), metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise WtalError(f"cannot be opened as a video ({error.strerror or error})") from None


def video_stream(container: Any) -> Any:
    """The first video stream that is not a cover picture."""
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
    a, b, c, d = orientation(frame)
    if a == d == 0:
        image, across, down = image.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def orientation(frame: Any) -> tuple[int, ...]:
    """Signs of the display matrix ``x' = a x + c y, y' = b x + d y``, y downwards: ``(a, b, c, d)``."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return (1, 0, 0, 1)
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix)[:36])
    turned = abs(b) + abs(c) > abs(a) + abs(d)  # nothing but quarter turns and mirrors is in use

    def sign(value: int) -> int:
        return -1 if value < 0 else 1

    return (0, sign(b), sign(c), 0) if turned else (sign(a), 0, 0, sign(d))
