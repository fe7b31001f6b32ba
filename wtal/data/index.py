"""What need not be read again of feature files that have not changed: how long they are, and what training asks of all.

Opening twenty thousand files takes seconds and reading them minutes, at every start. So both answers are kept under
:func:`wtal.data.cache.cache_root`, for as long as every file keeps its path, size and time of change.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from wtal.data.batches import statistics
from wtal.data.cache import cache_root
from wtal.data.features import check_features, feature_lengths, feature_width
from wtal.data.video import Video, VideoSet
from wtal.errors import WtalError
from wtal.platform.files import WriteError, write_atomically

Progress = Callable[[int, int], None]
"""Called with (videos done, videos in all)."""

_YOUNG_SECONDS = 2.0
"""A file changed so shortly before it is looked at may change again without its time telling: it is not remembered."""


def with_lengths(data: VideoSet) -> VideoSet:
    """The same data set, each video knowing how many snippets it has; opens only what is new or changed.

    Raises:
        WtalError: a file is missing or malformed.
    """
    stamps, young = _stamps(data.videos)
    place = _place("lengths", (os.path.abspath(path) for video in data.videos for path in _files(video)))
    known = _load(place, {"stamps": stamps.shape, "lengths": (len(stamps),)})
    stale = np.arange(len(stamps)) if known is None else np.flatnonzero((known["stamps"] != stamps).any(axis=1))
    lengths = np.zeros(len(stamps), np.int64) if known is None else known["lengths"]
    lengths[stale] = feature_lengths([data.videos[index] for index in stale])
    if len(stale):
        stamps[young] = 0
        _store(place, {"stamps": stamps, "lengths": lengths})
    videos = tuple(replace(video, snippets=int(n)) for video, n in zip(data.videos, lengths, strict=True))
    return replace(data, videos=videos)


def survey(data: VideoSet, progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read all features once, so that what is wrong with any of them is known before training.

    Args:
        data: a data set with training videos.
        progress: told of the reading.

    Returns:
        mean and standard deviation of each I3D dimension over the training snippets, two ``[Di]`` float64.

    Raises:
        WtalError: a file is malformed, of another width than the others, or holds a value that is not finite.
    """
    stamps, young = _stamps(data.videos)
    width = feature_width(data.videos[0].i3d)
    clip_width = next((feature_width(video.clip) for video in data.videos if video.clip), 0)
    place = _place("read", [stamps.tobytes().hex(), *(f"{video.subset} {video.id}" for video in data.videos)])
    if known := _load(place, {"mean": (width,), "deviation": (width,)}):
        return known["mean"], known["deviation"]
    done = 0

    def checked(subset: str) -> Iterator[Video]:
        nonlocal done
        for video in data.subset(subset):
            check_features(video, i3d=subset != "train")  # the statistics read that
            for kind, path, expected in (("I3D", video.i3d, width), ("CLIP", video.clip, clip_width)):
                if path is not None and (found := feature_width(path)) != expected:
                    told = f"its {kind} features are {found} wide, expected {expected} as in other videos"
                    raise WtalError(f"video {video.id}: {told}")
            yield video
            done += 1
            if progress is not None:
                progress(done, len(data.videos))

    for _ in checked("test"):
        pass
    mean, deviation = statistics(checked("train"))
    if not young.any():
        _store(place, {"mean": mean, "deviation": deviation})
    return mean, deviation


def _files(video: Video) -> list[Path]:
    return [*video.i3d, *([video.clip] if video.clip else [])]


def _stamps(videos: Sequence[Video]) -> tuple[np.ndarray, np.ndarray]:
    """A hash of the state of each video's files, uint64 ``[N, 2]``, and whether one of them is young, bool ``[N]``."""
    now = time.time()
    stamps, young = np.zeros((len(videos), 2), np.uint64), np.zeros(len(videos), bool)
    for row, video in enumerate(videos):
        state = hashlib.sha256()
        for path in _files(video):
            try:
                found = path.stat()
            except OSError as error:
                raise WtalError(f"video {video.id}: {path}: {error.strerror}, expected a .npy file") from None
            # The inode's time, too, which nobody can set back: a copy may have the time of its source.
            facts = f"{os.path.abspath(path)} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} "
            state.update(facts.encode("utf-8", "surrogateescape"))
            young[row] |= found.st_ctime > now - _YOUNG_SECONDS
        stamps[row] = np.frombuffer(state.digest()[:16], np.uint64)
    return stamps, young


def _place(kind: str, parts: Iterable[str]) -> Path:
    name = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_root() / "index" / f"{kind}-{name}.npz"


def _load(place: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray] | None:
    """The arrays in a file of the cache; None where there is none, or it is not what it should be."""
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in shapes}
    except Exception:  # a damaged file surfaces as almost anything; it is made anew
        return None
    return found if all(found[name].shape == shape for name, shape in shapes.items()) else None


def _store(place: Path, arrays: dict[str, np.ndarray]) -> None:
    """Keep arrays for the next time; a cache that cannot be written costs that time and no more."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    with suppress(WriteError):
        write_atomically(place, file.getvalue())
