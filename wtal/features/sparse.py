"""Few frames of a video: only the groups of pictures that hold one are decoded, only those frames become pictures.

A first pass over the packets, which decodes nothing, lays out the time line; a second one hands the decoder the groups
that are needed, each up to its last needed frame. It passes over packets instead of seeking: reading them costs little
beside decoding, and a file is read whole for its hash anyway. Where packets do not tell which frames they become, all
of the file is decoded, as :class:`wtal.features.decode.VideoReader` does.
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
"""Of that many frames, those that will be asked for."""

_ONE_FRAME_A_PACKET = frozenset({"h264", "hevc", "mpeg4", "vp9", "libvpx-vp9", "av1", "libdav1d", "mjpeg", "ffv1"})


class SparseReader:
    """Iterates once over the frames of a video file, of which only those wanted can be made into pictures.

    Frames and facts are those of :class:`wtal.features.decode.VideoReader`.

    Args:
        path: the file.
        fps: frames a second that come out.
        short_side: their shorter edge in pixels.
        wanted: chooses frames, once their number is known.
        allow_truncated: as there.

    Attributes:
        decoded: how many frames the decoder gave.
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
        """What was found; complete after the iteration."""
        return self._sparse or self._whole.facts

    def pictures(self) -> Iterator[Picture]:
        """Every frame in order; raises as :class:`wtal.features.decode.VideoReader` does."""
        given = 0
        try:
            for picture in self._few():
                yield picture
                given += 1
        except (_Unusual, import_av().FFmpegError):
            self._sparse = None
            for number, picture in enumerate(self._whole.pictures()):
                if number >= given:
                    yield picture
            self.decoded += self.facts.source_frames

    def _few(self) -> Iterator[Picture]:
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
        """The needed source frames, given by their place in display order."""
        stamps = iter([plan.stamps[number] for number in needed])
        last_packet = plan.last_packets(needed)
        shape: tuple[int, int, tuple[int, ...]] | None = None
        stamp = next(stamps, None)
        for frame in self._frames(plan, last_packet):
            self.decoded += 1
            found = (frame.width, frame.height, orientation(frame))
            if frame.is_corrupt or (shape is not None and shape != found) or frame.pts is None:
                raise _Unusual
            shape = found
            plan.facts.width, plan.facts.height = frame.width, frame.height
            if stamp is not None and frame.pts >= stamp:
                if frame.pts > stamp:
                    raise _Unusual
                yield frame
                stamp = next(stamps, None)
        raise _Unusual  # more was asked for than came

    def _frames(self, plan: _Plan, last_packet: dict[int, int]) -> Iterator[Any]:
        """What the decoder gives for the groups in ``last_packet``, each up to the packet there."""
        with opened(self._path) as container:
            stream = video_stream(container)
            prepare(stream)
            fed, group, stop = False, -1, -1
            for number, packet in enumerate(_packets(container, stream)):
                if group + 1 < len(plan.groups) and number == plan.groups[group + 1]:
                    group += 1
                    if fed and stop < number - 1:  # a gap: what is before it ends here
                        yield from _drained(stream)
                        fed = False
                    stop = last_packet.get(group, -1)
                if number <= stop:
                    fed = True
                    yield from stream.decode(packet)
            if fed:
                yield from _drained(stream)


class _Unusual(Exception):
    """The packets do not tell which frames they become."""


def _not_wanted() -> np.ndarray:
    raise AssertionError("this frame was not wanted")


@dataclass
class _Plan:
    """What the packets tell: ``stamps`` and decoding ``places`` of the source frames in display order, the packets at
    which ``groups`` of pictures begin that need nothing of those before, and for each frame at the fixed rate the
    source frame ``shown``.
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
    """A packet that stands for its frame."""

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
        except WtalError:  # told by the reader of the whole file, in its own words
            raise _Unusual from None
        return _Plan(
            timeline.facts, sorted_stamps, array("q", order.astype(np.int64).tobytes()), _groups(stamps, keys), shown
        )


def _groups(stamps: array[int], keys: array[int]) -> array[int]:
    """The key frames before which nothing is shown that is decoded after them, and the other way round."""
    every = np.array(stamps)
    latest = np.maximum.accumulate(every)
    earliest = np.minimum.accumulate(every[::-1])[::-1]
    return array("q", [key for key in keys if key == 0 or (latest[key - 1] < every[key] == earliest[key])])


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    return (packet for packet in container.demux(stream) if packet.size)


def _drained(stream: Any) -> Iterator[Any]:
    """What the decoder still holds; it is then as good as new."""
    yield from stream.decode(None)
    stream.codec_context.flush_buffers()
