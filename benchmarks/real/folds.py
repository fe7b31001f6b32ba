"""Parts of the training videos for cross-validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from wtal.data.video import Video


def split(videos: Sequence[Video], folds: int) -> list[list[Video]]:
    """Parts by a hash of the video's id: a video's part depends on its id and ``folds`` alone."""
    parts: list[list[Video]] = [[] for _ in range(folds)]
    for video in videos:
        parts[int.from_bytes(hashlib.sha256(video.id.encode()).digest()[:8], "big") % folds].append(video)
    return parts
