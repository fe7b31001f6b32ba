"""How long a video is: what its container states, what its packets span, and whether it is all there."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from typing import Any

from wtal.errors import WtalError

_MISSING_SECONDS = 1  # what a whole file may lack of its declared length, ...
_MISSING_OF_SHORT = Fraction(1, 10)  # ... but no more than this share of a short one ...
_MISSING_OF_LONG = Fraction(1, 50)  # ... and up to this share of a long one


def declared_seconds(container: Any, stream: Any) -> Fraction | None:
    """The length that the container states for the video; Matroska's counts from second 0, not from its first frame."""
    if stream.duration and stream.time_base:
        return Fraction(stream.duration * stream.time_base)
    for name, value in stream.metadata.items():  # with a language in its name where that was given: DURATION-eng
        match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", value) if name.startswith("DURATION") else None
        if match is not None and any(map(float, match.groups())):
            return 3600 * int(match[1]) + 60 * int(match[2]) + Fraction(match[3])
    # Only where video is alone: else the sound may be what is long.
    if container.duration and len(container.streams) == 1:
        return Fraction(container.duration, 1_000_000)
    return None


class Extent:
    """From when to when a file's packets are, of all its streams."""

    def __init__(self) -> None:
        self.first: dict[int, Fraction] = {}
        self.end = Fraction(0)

    def add(self, packet: Any) -> None:
        """One more packet."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None or not packet.time_base:
            return
        second = Fraction(stamp * packet.time_base)
        self.first[packet.stream.index] = min(second, self.first.get(packet.stream.index, second))
        self.end = max(self.end, second + Fraction((packet.duration or 0) * packet.time_base))


class Gaps:
    """Where frames are on for longer than frames of this video are, and than they say themselves.

    What is usual is counted: containers guess at the rate of interlaced video.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, int]] = Counter()  # milliseconds, so that there are few of them

    def add(self, on: Fraction, stated: Fraction) -> None:
        """One more frame: how long it is on, and how long it says."""
        self._counts[round(1000 * on), round(1000 * stated)] += 1

    def seconds(self) -> Fraction:
        """By how much too long, all together."""
        lengths: Counter[int] = Counter()
        for (on, _), count in self._counts.items():
            lengths[on] += count
        ((usual, _),) = lengths.most_common(1) or [(0, 0)]
        gaps = ((on - max(usual, stated), count) for (on, stated), count in self._counts.items())
        return Fraction(sum(gap * count for gap, count in gaps if gap > usual / 2), 1000)


def stated_length(frame: Any, nominal: Fraction) -> Fraction:
    """How long a frame says that it is on."""
    return Fraction(frame.duration * frame.time_base) if frame.duration and frame.time_base else nominal


def last_length(frame: Any, nominal: Fraction, second: Fraction, declared: Fraction | None) -> Fraction:
    """How long the last frame is on."""
    stated = stated_length(frame, nominal)
    if stated > 1 and (declared is None or second + stated > declared + nominal):
        return nominal
    return stated


def tolerance(declared: Fraction, nominal: Fraction) -> Fraction:
    """By how much a whole file's length may differ from the declared one."""
    return max(min(Fraction(_MISSING_SECONDS), _MISSING_OF_SHORT * declared), _MISSING_OF_LONG * declared, nominal)


def check_whole(
    container: Any, stream: Any, end: Fraction, declared: Fraction | None, nominal: Fraction, extent: Extent
) -> None:
    """Refuse a file that ends before it says."""
    if declared is not None:
        found = end
        if not stream.duration:
            declared -= min(max(extent.first.get(stream.index, Fraction(0)), Fraction(0)), declared)
    elif container.duration and extent.first:  # one length for all streams, so for the one that lasts longest
        declared = Fraction(container.duration, 1_000_000)
        found = extent.end - min(*extent.first.values(), Fraction(0))
    else:
        return
    if found < declared - tolerance(declared, nominal):
        raise WtalError(
            f"truncated: {float(found):.1f} s of {float(declared):.1f} s could be decoded; "
            "--allow-truncated takes what is there"
        )
