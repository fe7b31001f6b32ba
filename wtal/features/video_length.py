"""The length of a video: declared by its container, measured on its packets and frames; and the test for truncation."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from typing import Any

# A whole file may be shorter than its declared length by one second. In a short video this is limited to one tenth of
# its length. In a long video one fiftieth of its length is allowed, if that is more.
_MISSING_SECONDS = 1
_MISSING_OF_SHORT = Fraction(1, 10)
_MISSING_OF_LONG = Fraction(1, 50)


def declared_seconds(container: Any, stream: Any) -> Fraction | None:
    """The length of the video in seconds that the container declares; None if it declares none.

    Matroska declares the end of the video counted from second 0, not from the first frame.
    """
    if stream.duration and stream.time_base:
        return Fraction(stream.duration * stream.time_base)
    for name, value in stream.metadata.items():  # the name may have a language, e.g. DURATION-eng
        match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", value) if name.startswith("DURATION") else None
        if match is not None and any(map(float, match.groups())):
            return 3600 * int(match[1]) + 60 * int(match[2]) + Fraction(match[3])
    # The container's length is that of its longest stream, so it is used only if the video is the only stream.
    if container.duration and len(container.streams) == 1:
        return Fraction(container.duration, 1_000_000)
    return None


class Extent:
    """The time span of a file's packets, over all its streams.

    Attributes:
        first: the earliest time in seconds, by index of the stream.
        end: the latest end of a packet in seconds.
    """

    def __init__(self) -> None:
        self.first: dict[int, Fraction] = {}
        self.end = Fraction(0)

    def add(self, packet: Any) -> None:
        """Include a packet; one without a time stamp is ignored."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None or not packet.time_base:
            return
        second = Fraction(stamp * packet.time_base)
        self.first[packet.stream.index] = min(second, self.first.get(packet.stream.index, second))
        self.end = max(self.end, second + Fraction((packet.duration or 0) * packet.time_base))


class Gaps:
    """Gaps in a video: frames that are shown for longer than usual in this video, and for longer than they declare.

    The usual duration is the most frequent one. The declared frame rate is not used, because containers only guess the
    rate of interlaced video.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, int]] = Counter()  # in milliseconds, so that there are few different keys

    def add(self, on: Fraction, stated: Fraction) -> None:
        """Add a frame.

        Args:
            on: how long it is shown, in seconds.
            stated: the duration that it declares, in seconds.
        """
        self._counts[round(1000 * on), round(1000 * stated)] += 1

    def seconds(self) -> Fraction:
        """The total length of all gaps in seconds."""
        lengths: Counter[int] = Counter()
        for (on, _), count in self._counts.items():
            lengths[on] += count
        ((usual, _),) = lengths.most_common(1) or [(0, 0)]
        gaps = ((on - max(usual, stated), count) for (on, stated), count in self._counts.items())
        return Fraction(sum(gap * count for gap, count in gaps if gap > usual / 2), 1000)


def stated_length(frame: Any, nominal: Fraction) -> Fraction:
    """The duration in seconds that a frame declares; ``nominal`` if it declares none."""
    return Fraction(frame.duration * frame.time_base) if frame.duration and frame.time_base else nominal


def last_length(frame: Any, nominal: Fraction, second: Fraction, declared: Fraction | None) -> Fraction:
    """The duration of the last frame in seconds.

    It is the duration that the frame declares. But a duration of more than a second is replaced by ``nominal`` if no
    length of the video is declared, or if the frame would end after that length.

    Args:
        frame: the last frame.
        nominal: seconds between two frames.
        second: the time of the frame in seconds.
        declared: the length of the video in seconds according to its container, or None.
    """
    stated = stated_length(frame, nominal)
    if stated > 1 and (declared is None or second + stated > declared + nominal):
        return nominal
    return stated


def tolerance(declared: Fraction, nominal: Fraction) -> Fraction:
    """The number of seconds by which the length of a whole file may differ from the declared length."""
    return max(min(Fraction(_MISSING_SECONDS), _MISSING_OF_SHORT * declared), _MISSING_OF_LONG * declared, nominal)


def missing_end(
    container: Any, stream: Any, end: Fraction, declared: Fraction | None, nominal: Fraction, extent: Extent
) -> tuple[Fraction, Fraction] | None:
    """Whether a file is truncated: it ends before its declared end.

    Args:
        container: the open file.
        stream: its video stream.
        end: the end of the last decoded frame in seconds.
        declared: the length of the video in seconds according to its container, or None.
        nominal: seconds between two frames.
        extent: the time span of all packets.

    Returns:
        The seconds that it has and those that it declares; None for a whole file, or one that declares nothing.
    """
    if declared is not None:
        length = end
        if not stream.duration:
            declared -= min(max(extent.first.get(stream.index, Fraction(0)), Fraction(0)), declared)
    elif container.duration and extent.first:  # one length for all streams: that of the longest
        declared = Fraction(container.duration, 1_000_000)
        length = extent.end - min(*extent.first.values(), Fraction(0))
    else:
        return None
    return (length, declared) if length < declared - tolerance(declared, nominal) else None
