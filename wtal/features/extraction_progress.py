"""Progress of an extraction: frames done, and videos per second."""

from __future__ import annotations

import time
from collections.abc import Mapping

from wtal.features.options import Stream
from wtal.features.snippets import Piece
from wtal.features.video_list import Target
from wtal.platform.progress import Work


class ExtractionProgress:
    """Advances a progress bar by frames.

    Args:
        work: the progress bar. Its total is the number of frames according to the containers.
        targets: the videos.
        seconds: the length of each video according to its container, by id.
        stream: the stream whose pieces are counted, so that each frame counts once.
    """

    def __init__(self, work: Work, targets: list[Target], seconds: Mapping[str, float], stream: Stream) -> None:
        self._work = work
        self._left = {target.id: round(seconds[target.id] * target.timebase.fps) for target in targets}
        self._stream = stream
        self._started = time.monotonic()
        self._videos = 0

    def piece(self, target: Target, piece: Piece) -> None:
        """Count the frames of a piece that a network took."""
        if piece.stream == self._stream:
            self._advance(target, min(int(target.timebase.stride), self._left[target.id]))

    def settle(self, target: Target) -> None:
        """Count a finished video. Its remaining frames count as done, as the container may declare a wrong length."""
        self._videos += 1
        self._advance(target, self._left[target.id])

    def _advance(self, target: Target, frames: int) -> None:
        self._left[target.id] -= frames
        rate = self._videos / max(time.monotonic() - self._started, 1e-9)
        self._work.advance(frames, {"videos/s": rate})
