"""The list of videos to extract: their files, their ids, and the paths of their features."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wtal.data.annotations import Annotations, read_annotations
from wtal.data.catalog import named
from wtal.data.layouts import actionformer, basnet
from wtal.data.layouts.protocol import GRID, Candidate, Dataset, file_names, in_splits
from wtal.data.layouts.registry import LAYOUTS
from wtal.data.npy import open_rows
from wtal.data.timebase import Timebase
from wtal.data.video_id import check_id
from wtal.errors import WtalError
from wtal.platform.folders import walk
from wtal.platform.messages import counted, first_few
from wtal.platform.text import read_lines

_ENDINGS = """
3g2 3gp asf avi divx f4v flv h264 h265 hevc ivf m2ts m2v m4v mkv mov mp4 mpe mpeg mpg mts mxf nut ogm ogv qt rm rmvb ts
vob webm wmv y4m
"""
SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
"""Extensions of the files in a folder that count as videos."""

I3D_FOLDER = "i3d"
CLIP_FOLDER = "clip"

_LONGEST_ID = 230  # bytes; file systems allow 255, and names of temporary files and entries are longer than the id


@dataclass(frozen=True)
class Target:
    """One video and the paths of its feature files.

    Attributes:
        id: the id of the video in annotations and feature files.
        source: the video file.
        i3d: one file for the concatenation of RGB and flow, or one file for each; empty if no I3D features are
            extracted.
        clip: the file for CLIP features.
        timebase: the grid of the snippets; stride and window are whole numbers.
        rows: the number of snippets of the existing I3D features; None if they are extracted now or do not exist.
    """

    id: str
    source: Path
    i3d: tuple[Path, ...]
    clip: Path
    timebase: Timebase
    rows: int | None = None

    def files(self, clip: bool) -> tuple[Path, ...]:
        """All feature files, with or without the file for CLIP."""
        return (*self.i3d, self.clip) if clip else self.i3d


@dataclass(frozen=True)
class VideoFiles:
    """Video files by id, sorted; and the other files of the folders, whose extensions are not in :data:`SUFFIXES`."""

    videos: dict[str, Path]
    others: tuple[Path, ...]


@dataclass(frozen=True)
class Planned:
    """The comparison of video files and annotations.

    Attributes:
        targets: the videos to extract, sorted by id.
        absent: ids of annotated videos without a video file.
        unnamed: ids of video files that the annotations use neither for training nor for testing.
        featureless: ids of targets whose I3D features should exist but do not.
    """

    targets: list[Target]
    absent: tuple[str, ...] = ()
    unnamed: tuple[str, ...] = ()
    featureless: tuple[str, ...] = ()


def find_videos(places: Sequence[Path]) -> VideoFiles:
    """Find the video files. The id of each is its file name without the extension.

    Args:
        places: video files; folders, which are searched recursively, with links but without hidden files; and ``.txt``
            lists with one path per line.

    Raises:
        WtalError: there is no video, or some file names cannot be used as ids. The message lists the first ones.
    """
    videos: dict[str, Path] = {}
    others: list[Path] = []
    bad: list[str] = []
    for path in _files(places, others):
        id = path.stem
        if complaint := _complaint(path):
            bad.append(complaint)
        elif id in videos and videos[id].resolve() != path.resolve():
            bad.append(f"{path} and {videos[id]} have the same name, expected one of its own for each video")
        else:
            videos[id] = path
    if bad:
        number = f"{len(bad)} names cannot be used: " if len(bad) > 1 else ""
        raise WtalError(number + "; ".join(bad[:5]) + ("; ..." if len(bad) > 5 else ""))
    if not videos:
        raise WtalError(f"{', '.join(map(str, places))}: no video, expected files such as .mp4, .mkv, .webm or .avi")
    return VideoFiles(dict(sorted(videos.items())), tuple(others))


def _complaint(path: Path) -> str | None:
    """Why the file name cannot be an id, as ids are part of other file names and of lists of labels; None if it can."""
    shown = str(path) if str(path).isprintable() else repr(str(path))
    try:
        check_id(path.stem, Path(shown))
    except WtalError as error:
        return str(error)
    if path.stem != path.stem.strip():
        return f"{shown}: video {path.stem!r}: lists of labels lose spaces around a name, expected none"
    if len(path.stem.encode()) > _LONGEST_ID:
        return f"{path.parent}: video {path.stem[:40]!r}...: expected a name of at most {_LONGEST_ID} bytes"
    return None


def _files(places: Sequence[Path], others: list[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            try:
                inside = list(walk(place))
            except OSError as error:
                raise WtalError(f"{error.filename}: cannot be read ({error.strerror}), expected videos") from None
            for path in inside:
                # A broken link without an extension may be a folder on a disk that is not mounted, so it is an error.
                if path.suffix.lower() in SUFFIXES or (not path.suffix and not path.exists()):
                    yield path
                else:
                    others.append(path)
        elif place.suffix == ".txt":
            yield from (place.parent / line for line in read_lines(place) if not line.startswith("#"))
        else:
            yield place


def check_there(videos: dict[str, Path]) -> None:
    """Raise WtalError, before anything is computed, if a video file does not exist."""
    if missing := [path for path in videos.values() if not path.is_file()]:
        raise WtalError(
            f"{first_few(missing)}: no such file ({len(missing)} of {counted(len(videos), 'video')} missing)"
        )


def own_targets(videos: dict[str, Path], root: Path, timebase: Timebase) -> list[Target]:
    """Targets for layout ``own``: the features are ``i3d/<video>.npy`` and ``clip/<video>.npy``."""
    return [
        Target(id, path, (root / I3D_FOLDER / f"{id}.npy",), root / CLIP_FOLDER / f"{id}.npy", timebase)
        for id, path in videos.items()
    ]


def layout_targets(videos: dict[str, Path], root: Path, layout: str, dataset: str, only_clip: bool = False) -> Planned:
    """Targets in a layout of a known data set, for the videos that its annotations use for training or testing.

    Args:
        videos: video files by id.
        root: root of the layout, with the annotations.
        layout: the name of the layout.
        dataset: the name of the data set.
        only_clip: extract only CLIP features; the I3D features must exist.

    Raises:
        WtalError: there are no annotations, they have none of the videos, or with ``only_clip`` there are no I3D
            features.
    """
    known = named(dataset)
    annotations = layout_annotations(root, layout, known)
    targets, absent, used = [], [], set()
    if only_clip and not LAYOUTS[layout].has_features(root, known):
        raise WtalError(f"{root}: no I3D features in the layout {layout}, expected {LAYOUTS[layout].wanted(known)}")
    find = LAYOUTS[layout].candidates if only_clip else None
    candidates = find(root, known, annotations, None) if find else _candidates(root, layout, known, annotations)
    for candidate in candidates:
        id = candidate.annotated.id
        name = next((name for name in file_names(id, known) if name in videos), None)
        if name is None:
            absent.append(id)
        else:
            used.add(name)
            clip = root / CLIP_FOLDER / f"{id}.npy"
            i3d, rows = ((), _rows(candidate.i3d)) if only_clip else (candidate.i3d, None)
            targets.append(Target(id, videos[name], i3d, clip, candidate.timebase, rows))
    if not targets:
        raise WtalError(f"{annotations.path}: has none of the {len(videos)} videos, expected file names like its ids")
    targets.sort(key=lambda target: target.id)
    featureless = tuple(target.id for target in targets if only_clip and target.rows is None)
    if len(featureless) == len(targets):
        raise WtalError(f"{root}: has I3D features of none of the {len(targets)} videos, expected some to fit")
    return Planned(targets, tuple(absent), tuple(name for name in videos if name not in used), featureless)


def _rows(i3d: tuple[Path, ...]) -> int | None:
    """The number of snippets of existing I3D features; None if a file is missing.

    The smaller number counts: flow needs a next frame, so it may have fewer snippets than RGB.
    """
    if not all(path.is_file() for path in i3d):
        return None
    rows = min(len(open_rows(path)) for path in i3d)
    if not rows:
        raise WtalError(f"{i3d[0]}: has no row, expected I3D features [T, D]")
    return rows


def layout_annotations(root: Path, layout: str, dataset: Dataset) -> Annotations:
    """The annotations of a layout under ``root``.

    Raises:
        WtalError: there are none.
    """
    truth = LAYOUTS[layout].truth(root, dataset)
    if truth is None:
        wanted = re.split(r",? and ", LAYOUTS[layout].wanted(dataset))[
            0
        ]  # the rest of the list are the features, which are extracted here
        raise WtalError(
            f"{root}: no annotations of {dataset.name} in the layout {layout}, expected them there first: {wanted}"
        )
    return read_annotations(truth)


def _candidates(root: Path, layout: str, dataset: Dataset, annotations: Annotations) -> Iterator[Candidate]:
    if layout == "wtalc":  # its single file is made from these files, see write_joint
        for video, subset in in_splits(annotations):
            yield Candidate(video, subset, (root / I3D_FOLDER / f"{video.id}.npy",), GRID)
    elif layout == "basnet":
        for subset in ("train", "test"):  # the layout's reader looks in these folders if they exist
            for stream in ("rgb", "flow"):
                (root / "features" / subset / stream).mkdir(parents=True, exist_ok=True)
        yield from basnet.candidates(root, dataset, annotations, None)
    else:
        yield from actionformer.candidates(root, dataset, annotations, None)
