"""Decoding: the frames of a video file as a stream, at a fixed rate, upright, scaled to a given shorter edge."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from wtal.errors import WtalError
from wtal.features.timeline import Facts, Timeline
from wtal.features.video_length import Extent, declared_seconds

_CODEC_THREADS = 4
_OLDEST_AV = 17  # the first version whose reformat() has the argument ``threads``


def import_av() -> Any:
    """The module ``av`` (PyAV). Only extraction needs it.

    Raises:
        WtalError: PyAV is not installed, or is too old.
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
"""Converts a decoded frame to uint8 RGB ``[height, width, 3]`` when called; this can take longer than the decoding."""


class VideoReader:
    """Iterates once over the frames of a video file: uint8 RGB ``[height, width, 3]``, all of the same size.

    The first frame is at second 0. Pixels are assumed to be square. ``facts`` is complete after the iteration.

    Args:
        path: the video file.
        fps: output frames per second.
        short_side: shorter edge of the output frames in pixels; the aspect ratio is kept.
        allow_truncated: also read a file that ends early or has lost many frames.

    Raises:
        WtalError: (while iterating) the file cannot be read, has no video stream, is truncated, has lost more than a
            tenth of its frames, changes its frame size, or has impossible time stamps. The message does not name the
            file.
    """

    def __init__(self, path: Path, fps: Fraction, short_side: int, allow_truncated: bool = False) -> None:
        self._path = path
        self._fps = fps
        self._short_side = short_side
        self._allow_truncated = allow_truncated
        self._facts: Facts | None = None

    @property
    def facts(self) -> Facts:
        """Facts about the file; available after the first frame, complete after the iteration."""
        assert self._facts is not None
        return self._facts

    def __iter__(self) -> Iterator[np.ndarray]:
        for picture in self.pictures():
            yield picture()

    def pictures(self) -> Iterator[Picture]:
        """The same frames, but each is converted only when it is called; so a caller can skip frames."""
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
                this_shape = (frame.width, frame.height, orientation(frame))
                if shape is not None and this_shape != shape:
                    raise WtalError(
                        f"its frames change from {shape[0]}x{shape[1]} to {this_shape[0]}x{this_shape[1]} or turn "
                        f"at {float(timeline.second):.2f} s, expected one size"
                    )
                shape = this_shape
                facts.width, facts.height = frame.width, frame.height
                yield from map(pictures.of, held)
            yield from map(pictures.of, timeline.finish(self._allow_truncated))

    @staticmethod
    def _decoded(container: Any, stream: Any, facts: Facts, extent: Extent) -> Iterator[Any]:
        """Frames in display order. Damaged packets are skipped; the iteration stops where a truncated file ends."""
        av = import_av()
        prepare(stream)
        # All streams are read, sound too: if the container declares one length for all streams, only the longest
        # stream shows whether the file is truncated.
        packets = container.demux()
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError:
                facts.damaged_packets += 1
                packet = None  # flush: the frames that the decoder still holds are intact
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
    """The length in seconds that the container declares; None if it declares none, or if the file cannot be read."""
    try:
        with opened(path) as container:
            declared = declared_seconds(container, video_stream(container))
    except WtalError:
        return None
    return None if declared is None else float(declared)


class Pictures:
    """Converts decoded frames to pictures. A frame that is shown several times is converted once."""

    def __init__(self, short_side: int) -> None:
        self._short_side = short_side
        self._made: tuple[Any, np.ndarray] | None = None

    def of(self, frame: Any) -> Picture:
        """The picture of a decoded frame, converted when it is called."""

        def make() -> np.ndarray:
            if self._made is None or self._made[0] is not frame:
                try:
                    self._made = (frame, upright(frame, self._short_side))
                except import_av().FFmpegError as error:
                    raise undecodable(error) from None
            return self._made[1]

        return make


def undecodable(error: Any) -> WtalError:
    """The error that reports FFmpeg's message."""
    return WtalError(f"cannot be decoded ({error.strerror or error})")


def prepare(stream: Any) -> None:
    """Make the stream's decoder use several threads."""
    stream.codec_context.thread_type = "AUTO"
    stream.codec_context.thread_count = _CODEC_THREADS


def opened(path: Path) -> Any:
    """The container of a video file, as a context manager.

    Raises:
        WtalError: the file cannot be opened as a video.
    """
    av = import_av()
    try:
        return av.open(str(path), metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise WtalError(f"cannot be opened as a video ({error.strerror or error})") from None


def video_stream(container: Any) -> Any:
    """The first video stream that is not a cover picture.

    Raises:
        WtalError: there is none.
    """
    cover = import_av().stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & cover:
            return stream
    kinds = sorted({stream.type for stream in container.streams}) or ["none"]
    raise WtalError(f"has no video stream (streams: {', '.join(kinds)})")


def upright(frame: Any, short_side: int) -> np.ndarray:
    """A decoded frame as uint8 RGB ``[H, W, 3]``, scaled (bilinear) and rotated by its display matrix."""
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
    """Signs ``(a, b, c, d)`` of the display matrix ``x' = a x + c y, y' = b x + d y``, with y downwards."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return (1, 0, 0, 1)
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix)[:36])
    turned = abs(b) + abs(c) > abs(a) + abs(d)  # display matrices are quarter turns and mirrors only

    def sign(value: int) -> int:
        return -1 if value < 0 else 1

    return (0, sign(b), sign(c), 0) if turned else (sign(a), 0, 0, sign(d))
