"""Cached facts about feature files: the length of each file, and the mean and standard deviation for training.

To open twenty thousand files takes seconds at every start, and to read them takes minutes. So both results are kept
under :func:`wtal.data.cache.cache_root`. They are valid while every file keeps its path, size and modification time.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from wtal.data.batches import statistics
from wtal.data.cache import Progress, cache_root
from wtal.data.features import check_features, clip_rows, feature_lengths, feature_width
from wtal.data.video import Video, VideoSet, nothing_to_measure
from wtal.errors import WtalError
from wtal.platform.files import WriteError, write_atomically
from wtal.platform.messages import first_few

_YOUNG_SECONDS = 2.0
"""A file that changed so recently may change again without a new modification time, so it is not cached."""


def with_lengths(data: VideoSet, allow_missing: bool = False, progress: Progress | None = None) -> VideoSet:
    """The same data set with the number of snippets and CLIP rows of each video; opens only new or changed files.

    Args:
        data: the data set.
        allow_missing: videos whose files cannot be used count as missing, and a note names each. To find them, all
            features are read once.
        progress: called after each video that was read.

    Raises:
        WtalError: files are missing or malformed. The error names every such file; to find them, all features are
            read once. With ``allow_missing``: no video is left.
    """
    stamps, young = _stamps(data.videos)
    place = _place("lengths", (os.path.abspath(path) for video in data.videos for path in _files(video)))
    columns = {name: (len(stamps),) for name in ("lengths", "clip_rows", "finite")}
    known = _load(place, {"stamps": stamps.shape, **columns})
    stale = np.ones(len(stamps), bool) if known is None else (known["stamps"] != stamps).any(axis=1)
    kept = {name: np.zeros(len(stamps), np.int64) if known is None else known[name] for name in columns}
    kept["finite"][stale] = 0
    bad: dict[int, str] = {}
    looked_into = np.flatnonzero(stale | (kept["finite"] == 0) if allow_missing else stale)
    for done, index in enumerate(looked_into.tolist(), 1):
        video = data.videos[index]
        try:
            if stale[index]:
                kept["lengths"][index], kept["clip_rows"][index] = feature_lengths([video])[0], clip_rows(video)
            if allow_missing:
                check_features(video, i3d=True)
                kept["finite"][index] = 1
        except WtalError as error:
            bad[index] = str(error)
        if allow_missing and progress is not None:
            progress(done, len(looked_into))
    if len(looked_into):
        young[list(bad)] = True  # read again the next time, to repeat the message
        stamps[young] = 0
        _store(place, {"stamps": stamps, **kept})
    if bad and not allow_missing:  # report all faults at once: otherwise the next start would fail at another file
        bad |= _faults({index: video for index, video in enumerate(data.videos) if index not in bad}, progress)
    if bad and (not allow_missing or len(bad) == len(data.videos)):
        raise unusable((bad[index] for index in sorted(bad)), len(data.videos))
    videos = tuple(
        replace(video, snippets=int(kept["lengths"][index]), clip_rows=int(kept["clip_rows"][index]))
        for index, video in enumerate(data.videos)
        if index not in bad
    )
    if not bad:
        return replace(data, videos=videos)
    notes = (*data.notes, f"left out, as their features cannot be used: {'; '.join(bad.values())}")
    test_notes = data.test_notes
    tests = ([video for video in kept_ if video.subset == "test"] for kept_ in (data.videos, videos))
    before, after = map(nothing_to_measure, tests)
    if after and not before:
        test_notes = (*test_notes, f"{data.name}: {after} is left, so training can tell no mAP")
    missing = (*data.missing, *(data.videos[index].id for index in bad))
    return replace(data, videos=videos, missing=missing, notes=notes, test_notes=test_notes)


def unusable(faults: Iterable[str], total: int) -> WtalError:
    """An error that names every video with unusable features, from one message per video; ``total`` is all videos."""
    messages = [*faults]
    if len(messages) == 1:
        return WtalError(messages[0] + ("; --allow-missing leaves it out" if total > 1 else ""))
    cure = "; --allow-missing leaves them out" if len(messages) < total else ""
    return WtalError(f"the features of {len(messages)} of {total} videos cannot be used: {'; '.join(messages)}{cure}")


def survey(data: VideoSet, progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read all features once, so that every fault is found before training.

    Args:
        data: a data set with training videos.
        progress: called after each video that was read.

    Returns:
        mean and standard deviation of each I3D dimension over the training snippets, two ``[Di]`` float64.

    Raises:
        WtalError: files are malformed or contain a value that is not finite (the error names every such file), or
            the widths of the files differ.
    """
    stamps, young = _stamps(data.videos)
    width = feature_width(data.videos[0].i3d)
    clip_width = next((feature_width(video.clip) for video in data.videos if video.clip), 0)
    place = _place("read", [stamps.tobytes().hex(), *(f"{video.subset} {video.id}" for video in data.videos)])
    if known := _load(place, {"mean": (width,), "deviation": (width,)}):
        return known["mean"], known["deviation"]
    try:
        mean, deviation = _survey(data, width, clip_width, progress)
    except WtalError:
        if faults := _faults(dict(enumerate(data.videos))):
            raise unusable(faults.values(), len(data.videos)) from None
        _check_widths(data)
        raise
    if not young.any():
        _store(place, {"mean": mean, "deviation": deviation})
    return mean, deviation


def _survey(data: VideoSet, width: int, clip_width: int, progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
    done = 0

    def checked(subset: str) -> Iterator[Video]:
        nonlocal done
        for video in data.subset(subset):
            check_features(video, i3d=subset != "train")  # the statistics read the I3D features of training videos
            for kind, path, expected in (("I3D", video.i3d, width), ("CLIP", video.clip, clip_width)):
                if path is not None and (own_width := feature_width(path)) != expected:
                    message = f"its {kind} features are {own_width} wide, expected {expected} as in other videos"
                    raise WtalError(f"video {video.id}: {message}")
            yield video
            done += 1
            if progress is not None:
                progress(done, len(data.videos))

    for _ in checked("test"):
        pass
    return statistics(checked("train"))


def _check_widths(data: VideoSet) -> None:
    """Raise a WtalError that counts the videos whose features are not as wide as most, and names the first of them."""
    for kind in ("I3D", "CLIP"):
        paths = {video.id: video.i3d if kind == "I3D" else (video.clip,) for video in data.videos}
        widths = {video: feature_width([path for path in own if path]) for video, own in paths.items() if any(own)}
        expected = Counter(widths.values()).most_common(1)[0][0] if widths else 0
        others = [(video, width) for video, width in widths.items() if width != expected]
        if len(others) > 1:
            some = first_few([f"{video} {width}" for video, width in others])
            raise WtalError(
                f"{data.name}: the {kind} features of {len(others)} of {len(widths)} videos have another width "
                f"({some}), expected {expected} as in most videos"
            )
        for video, width in others:
            raise WtalError(
                f"video {video}: its {kind} features are {width} wide, expected {expected} as in other videos"
            )


def _faults(videos: Mapping[int, Video], progress: Progress | None = None) -> dict[int, str]:
    """The fault of each faulty video, by index; widths are not checked."""
    faults: dict[int, str] = {}
    for done, (index, video) in enumerate(videos.items(), 1):
        try:
            check_features(video, i3d=True)
        except WtalError as error:
            faults[index] = str(error)
        if progress is not None:
            progress(done, len(videos))
    return faults


def _files(video: Video) -> list[Path]:
    return [*video.i3d, *([video.clip] if video.clip else [])]


def _stamps(videos: Sequence[Video]) -> tuple[np.ndarray, np.ndarray]:
    """A hash of the state of each video's files, uint64 ``[N, 2]``; whether a file changed recently, bool ``[N]``."""
    now = time.time()
    stamps, young = np.zeros((len(videos), 2), np.uint64), np.zeros(len(videos), bool)
    for row, video in enumerate(videos):
        state = hashlib.sha256()
        for path in _files(video):
            try:
                status = path.stat()
            except OSError as error:
                raise WtalError(f"video {video.id}: {path}: {error.strerror}, expected a .npy file") from None
            # Also the inode change time, which cannot be set back: a copy may have the modification time of its source.
            facts = f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} "
            state.update(facts.encode("utf-8", "surrogateescape"))
            young[row] |= status.st_ctime > now - _YOUNG_SECONDS
        stamps[row] = np.frombuffer(state.digest()[:16], np.uint64)
    return stamps, young


def _place(kind: str, parts: Iterable[str]) -> Path:
    name = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_root() / "index" / f"{kind}-{name}.npz"


def _load(place: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray] | None:
    """The arrays in a cache file; None if there is no such file or it is not valid."""
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            loaded = {name: arrays[name] for name in shapes}
    except Exception:  # a damaged file can raise almost any error; it is written again
        return None
    return loaded if all(loaded[name].shape == shape for name, shape in shapes.items()) else None


def _store(place: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to the cache; if this fails, the next start only takes longer."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    with suppress(WriteError):
        write_atomically(place, file.getvalue())
