"""Opens and checks the feature files of one video. :mod:`wtal.data.clip_alignment` resamples CLIP to the I3D grid."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from wtal.data.npy import Rows, open_rows
from wtal.data.video import Video
from wtal.errors import WtalError

_STRETCH = 16_384  # rows


def read_features(video: Video, start: int = 0, stop: int | None = None) -> np.ndarray:
    """I3D features of the snippets ``[start, stop)``: ``[T, D]`` float32, the video's files side by side.

    Only these snippets are read.

    Raises:
        WtalError: a file is missing or malformed, is not floating point ``[T, D]``, has no row, or contains NaN or
            infinity in these snippets, or the files differ in length by more than one row.
    """
    parts = _parts(video)
    length = min(len(part) for _, part in parts)
    rows = slice(*slice(start, stop).indices(length))
    widths = [part.shape[1] for _, part in parts]
    joined = np.empty((max(0, rows.stop - rows.start), sum(widths)), dtype=np.float32)
    column = 0
    for (path, part), width in zip(parts, widths, strict=True):
        joined[:, column : column + width] = finite_rows(part[rows], path, video, rows.start)
        column += width
    return joined


def read_clip(video: Video) -> np.ndarray:
    """CLIP features ``[T', D']`` float32, one row per sampled frame; raises like :func:`read_features`."""
    path, rows = open_clip_file(video)
    return finite_rows(rows[:], path, video, 0)


def feature_lengths(videos: Iterable[Video]) -> np.ndarray:
    """The number of snippets of each video, read from the files' headers if not yet known: ``[N]`` int64."""
    lengths = [
        min(len(part) for _, part in _parts(video)) if video.snippets is None else video.snippets for video in videos
    ]
    return np.array(lengths, dtype=np.int64)


def check_features(video: Video, i3d: bool = True) -> None:
    """Read all features of a video, CLIP and I3D, in blocks of rows; raises like :func:`read_features`."""
    for path, rows in [*(_parts(video) if i3d else []), *([open_clip_file(video)] if video.clip else [])]:
        for first in range(0, len(rows), _STRETCH):
            finite_rows(rows[first : first + _STRETCH], path, video, first)


def clip_rows(video: Video) -> int:
    """The number of CLIP rows of a video, 0 without CLIP features; raises like :func:`read_features`."""
    return len(open_clip_file(video)[1]) if video.clip else 0


def feature_width(paths: str | os.PathLike[str] | Sequence[Path]) -> int:
    """Columns of one feature file, or of several side by side, from their headers."""
    several = [Path(paths)] if isinstance(paths, str | os.PathLike) else list(paths)
    return sum(_opened(path, None).shape[1] for path in several)


def _parts(video: Video) -> list[tuple[Path, Rows]]:
    """The video's I3D files, checked for equal lengths; RGB and flow may differ by one, as flow has one frame less."""
    if not video.i3d:
        raise WtalError(f"video {video.id}: has no I3D feature files")
    parts = [(path, _opened(path, video)) for path in video.i3d]
    lengths = [len(part) for _, part in parts]
    if max(lengths) - min(lengths) > 1:
        rows = " and ".join(f"{path} {length}" for (path, _), length in zip(parts, lengths, strict=True))
        raise WtalError(f"video {video.id}: {rows} rows, expected lengths that differ by one row at most")
    return parts


def open_clip_file(video: Video) -> tuple[Path, Rows]:
    """The video's CLIP file and its rows; raises like :func:`read_features`."""
    if video.clip is None:
        raise WtalError(f"video {video.id}: has no CLIP feature file")
    return video.clip, _opened(video.clip, video)


def _opened(path: Path, video: Video | None) -> Rows:
    of = f"video {video.id}: " if video else ""
    try:
        features = open_rows(path)
    except WtalError as error:
        raise WtalError(f"{of}{error}".replace(str(path), _called(path, video), 1)) from None
    if len(features.shape) != 2 or features.dtype.kind != "f":
        got = f"{features.dtype} of shape {list(features.shape)}"
        raise WtalError(f"{of}{_called(path, video)}: {got}, expected floating point [T, D]")
    if 0 in features.shape:
        shape = list(features.shape)
        raise WtalError(f"{of}{_called(path, video)}: shape {shape}, expected at least one row and column")
    return features


def _called(path: Path, video: Video | None) -> str:
    """The name of a feature file in messages: the file that the user knows, if that is another one."""
    if video is None or video.origin is None or path not in video.i3d:
        return str(path)
    return f"{video.origin} (in wtal's cache {path})"


def finite_rows(rows: np.ndarray, path: Path, video: Video, first: int) -> np.ndarray:
    """The rows as float32; ``first`` is the position of the first row in the file, for messages.

    Raises:
        WtalError: a value is not finite in float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        single = rows.astype(np.float32, copy=False)
        # A sum of finite float32 values is finite in float64. This avoids a boolean array as large as the features.
        if np.isfinite(single.sum(dtype=np.float64)):
            return single
    bad = np.argwhere(~np.isfinite(single))
    row, column = bad[0]
    raise WtalError(
        f"video {video.id}: {_called(path, video)}: {rows[row, column]} in row {first + row}, column {column} "
        f"({len(bad)} such values), expected finite features"
    )
