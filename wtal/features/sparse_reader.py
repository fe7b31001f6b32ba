"""Sparse decoding: if only a few frames of a video are needed, only their groups of pictures are decoded.

A first pass reads all packets without decoding and computes the time line. A second pass decodes the groups of pictures
with needed frames, each up to its last needed frame. It reads and drops the other packets instead of seeking: reading
is cheap compared to decoding, and the whole file is read for its hash anyway. If the packets do not show which frames
they contain, :class:`wtal.features.decode.VideoReader` decodes the whole file.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from wtal.errors import WtalError
from wtal.features.decode import Picture, Pictures, VideoReader, import_av, opened, orientation, prepare, video_stream
from wtal.features.timeline import Facts, Timeline

Wanted = Callable[[int], Collection[int]]
"""Maps the number of frames of a video to the indices of the needed frames."""

_ONE_FRAME_A_PACKET = frozenset({"h264", "hevc", "mpeg4", "vp9", "libvpx-vp9", "av1", "libdav1d", "mjpeg", "ffv1"})


class SparseReader:
    """Iterates once over the frames of a video file; only the needed frames can be converted to pictures.

    Frames and facts are the same as those of :class:`wtal.features.decode.VideoReader`.

    Args:
        path: the video file.
        fps: output frames per second.
        short_side: shorter edge of the output frames in pixels.
        wanted: selects the needed frames once the number of frames is known.
        allow_truncated: also read a file that ends early or has lost many frames.

    Attributes:
        decoded: the number of frames that the decoder returned.
    """

    def __init__(
        self, path: Path, fps: Fraction, short_side: int, wanted: Wanted, allow_truncated: bool = False
    ) -> None:
        self._path, self._fps, self._short_side, self._wanted = path, fps, short_side, wanted
        self._whole = VideoReader(path, fps, short_side, allow_truncated)
        self._sparse: Facts | None = None
        self.decoded = 0

    @property
    def facts(self) -> Facts:
        """Facts about the file; complete after the iteration."""
        return self._sparse or self._whole.facts

    def pictures(self) -> Iterator[Picture]:
        """All frames in order. A frame that is not needed raises AssertionError when it is called.

        Raises:
            WtalError: see :class:`wtal.features.decode.VideoReader`.
        """
        yielded = 0
        try:
            for picture in self._sparse_pictures():
                yield picture
                yielded += 1
        except (_Unusual, import_av().FFmpegError):
            self._sparse = None
            for number, picture in enumerate(self._whole.pictures()):
                if number >= yielded:
                    yield picture
            self.decoded += self.facts.source_frames

    def _sparse_pictures(self) -> Iterator[Picture]:
        plan = _planned(self._path, self._fps)
        self._sparse = plan.facts
        needed = sorted({plan.shown[n] for n in self._wanted(len(plan.shown))})
        pictures, due = Pictures(self._short_side), set(needed)
        number, picture = -1, _not_wanted
        with contextlib.closing(self._decoded(plan, needed)) as frames:
            for source in plan.shown:
                if source != number:
                    number, picture = source, pictures.of(next(frames)) if source in due else _not_wanted
                yield picture

    def _decoded(self, plan: _Plan, needed: list[int]) -> Generator[Any]:
        """The needed source frames, decoded; ``needed`` has their positions in display order."""
        stamps = iter([plan.stamps[number] for number in needed])
        last_packet = plan.last_packets(needed)
        shape: tuple[int, int, tuple[int, ...]] | None = None
        stamp = next(stamps, None)
        for frame in self._frames(plan, last_packet):
            self.decoded += 1
            this_shape = (frame.width, frame.height, orientation(frame))
            if frame.is_corrupt or (shape is not None and shape != this_shape) or frame.pts is None:
                raise _Unusual
            shape = this_shape
            plan.facts.width, plan.facts.height = frame.width, frame.height
            if stamp is not None and frame.pts >= stamp:
                if frame.pts > stamp:
                    raise _Unusual
                yield frame
                stamp = next(stamps, None)
        raise _Unusual  # the decoder returned fewer frames than expected

    def _frames(self, plan: _Plan, last_packet: dict[int, int]) -> Iterator[Any]:
        """The decoder's frames for the groups in ``last_packet``, each up to the packet given there."""
        with opened(self._path) as container:
            stream = video_stream(container)
            prepare(stream)
            fed, group, stop = False, -1, -1
            for number, packet in enumerate(_packets(container, stream)):
                if group + 1 < len(plan.groups) and number == plan.groups[group + 1]:
                    group += 1
                    if fed and stop < number - 1:  # packets were skipped: flush the decoder
                        yield from _drained(stream)
                        fed = False
                    stop = last_packet.get(group, -1)
                if number <= stop:
                    fed = True
                    yield from stream.decode(packet)
            if fed:
                yield from _drained(stream)


class _Unusual(Exception):
    """The packets do not show which frames they contain, so the whole file must be decoded."""


def _not_wanted() -> np.ndarray:
    raise AssertionError("this frame was not wanted")


@dataclass
class _Plan:
    """The time line of a file, computed from its packets.

    Attributes:
        facts: the facts about the file.
        stamps: time stamps of the source frames, in display order.
        places: index of the packet of each source frame, in display order.
        groups: index of the first packet of each group of pictures that can be decoded without the groups before it.
        shown: for each output frame, the source frame that it shows.
    """

    facts: Facts
    stamps: array[int]
    places: array[int]
    groups: array[int]
    shown: array[int]

    def last_packets(self, needed: list[int]) -> dict[int, int]:
        """For each group with a needed frame, the last packet to decode."""
        places = np.array([self.places[number] for number in needed], dtype=np.int64)
        groups = np.searchsorted(np.array(self.groups), places, side="right") - 1
        last: dict[int, int] = {}
        for group, place in zip(groups.tolist(), places.tolist(), strict=True):
            last[group] = max(place, last.get(group, -1))
        return last


@dataclass(frozen=True)
class _Stamp:
    """A packet with the attributes of its frame, as :class:`wtal.features.timeline.Timeline` reads them."""

    number: int
    pts: int
    time_base: Fraction
    duration: int


def _planned(path: Path, fps: Fraction) -> _Plan:
    with opened(path) as container:
        stream = video_stream(container)
        if stream.codec_context.name not in _ONE_FRAME_A_PACKET:
            raise _Unusual
        timeline: Timeline[_Stamp] = Timeline(container, stream, fps)
        stamps, lengths, keys = array("q"), array("q"), array("q")
        for packet in container.demux():
            timeline.extent.add(packet)
            if packet.stream.index != stream.index or not packet.size:
                continue
            if packet.pts is None or packet.is_corrupt or packet.is_discard or packet.time_base != stream.time_base:
                raise _Unusual
            if packet.is_keyframe:
                keys.append(len(stamps))
            stamps.append(packet.pts)
            lengths.append(packet.duration or 0)
        if not keys or keys[0] != 0:
            raise _Unusual
        order = np.argsort(np.array(stamps), kind="stable")
        shown, sorted_stamps = array("q"), array("q", np.array(stamps)[order].tobytes())
        if len(np.unique(np.array(stamps))) != len(stamps):
            raise _Unusual
        try:
            for number, place in enumerate(order.tolist()):
                stamp = _Stamp(number, sorted_stamps[number], stream.time_base, lengths[place])
                shown.extend(held.number for held in timeline.push(stamp))
            shown.extend(held.number for held in timeline.finish(False))
        except WtalError:  # VideoReader raises the error when it decodes the whole file
            raise _Unusual from None
        return _Plan(
            timeline.facts, sorted_stamps, array("q", order.astype(np.int64).tobytes()), _groups(stamps, keys), shown
        )


def _groups(stamps: array[int], keys: array[int]) -> array[int]:
    """The key frames that separate decoding order and display order in the same way.

    All packets before such a key frame are shown before it, and all packets after it are shown after it.
    """
    every = np.array(stamps)
    latest = np.maximum.accumulate(every)
    earliest = np.minimum.accumulate(every[::-1])[::-1]
    return array("q", [key for key in keys if key == 0 or (latest[key - 1] < every[key] == earliest[key])])


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    return (packet for packet in container.demux(stream) if packet.size)


def _drained(stream: Any) -> Iterator[Any]:
    """The frames that the decoder still holds. After them the decoder is in its initial state."""
    yield from stream.decode(None)
    stream.codec_context.flush_buffers()
