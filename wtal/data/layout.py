"""Common parts of the on-disk layouts: the data sets by name, the search for files, and the construction of a VideoSet.

A layout is a module (:mod:`wtal.data.wtalc`, ``basnet``, ``actionformer``). It defines how the layout is recognised
under a root, which files it needs and where a video's features are. :func:`assemble` does the rest for all layouts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from wtal.data.annotations import AnnotatedVideo, Annotations, split_names
from wtal.data.cache import Progress
from wtal.data.npy import load_npy
from wtal.data.timebase import Timebase
from wtal.data.video import Video, VideoSet, nothing_to_measure
from wtal.errors import WtalError
from wtal.platform import fields

_LONGEST_ID = 240  # bytes; file systems allow 255 with the extension

GRID = Timebase(fps=25, stride=16, window=16)
"""The grid of the W-TALC and BaSNet features; it does not depend on the native rate of the video."""


@dataclass(frozen=True)
class Dataset:
    """A data set that wtal knows by name.

    Attributes:
        name: e.g. ``"thumos14"``; also the name of its folder.
        prefix: the beginning of the names of W-TALC's files.
        truth: possible names of the ground-truth file under a basnet root.
        actionformer_truth: possible names of the ground-truth file in ``annotations/`` under an actionformer root.
        actionformer_grid: the time base of the actionformer layout; None is stride 4, window 16 at each video's
            native rate.
        v_prefix: feature files may be named with or without ``v_`` before the id.
    """

    name: str
    prefix: str
    truth: tuple[str, ...]
    actionformer_truth: tuple[str, ...]
    actionformer_grid: Timebase | None = None
    v_prefix: bool = False


class Layout(Protocol):
    """The interface of a layout's module."""

    NAME: str

    def wanted(self, dataset: Dataset) -> str:
        """The files that the layout needs under a root, as text for messages."""

    def truth(self, root: Path, dataset: Dataset) -> Path | None:
        """The annotations under ``root``, None if there are none. This is how the layout is recognised."""

    def has_features(self, root: Path, dataset: Dataset) -> bool:
        """Whether there are any I3D features under ``root``."""

    def candidates(
        self, root: Path, dataset: Dataset, annotations: Annotations, progress: Progress | None
    ) -> Iterator[Candidate]:
        """The videos for training and testing, with the expected paths of their features."""


@dataclass(frozen=True)
class Candidate:
    """An annotated video of subset ``"train"`` or ``"test"``, the paths of its I3D files, and :attr:`Video.origin`."""

    annotated: AnnotatedVideo
    subset: str
    i3d: tuple[Path, ...]
    timebase: Timebase
    origin: str | None = None


class Files:
    """The files that exist; every folder is listed only once."""

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def __contains__(self, path: Path | None) -> bool:
        if path is None:
            return False
        folder = path.parent
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))
            except OSError:
                self._names[folder] = frozenset()
        return path.name in self._names[folder]

    def pick(self, folder: Path, names: Iterable[str]) -> Path:
        """The path of the first name whose file exists, else the path of the first name."""
        paths = [folder / f"{name}.npy" for name in names]
        return next((path for path in paths if path in self), paths[0])


def file_names(video_id: str, dataset: Dataset | None = None) -> tuple[str, ...]:
    """Possible names of a video's feature files, without ``.npy``."""
    if dataset is None or not dataset.v_prefix:
        return (video_id,)
    return (video_id, video_id[2:] if video_id.startswith("v_") else f"v_{video_id}")


def check_id(video_id: str, source: Path) -> None:
    """Reject a video id that leads to another folder, or that cannot be a file name."""
    try:
        fields.name(video_id, "id")
    except ValueError as error:
        raise WtalError(f"{source}: video {video_id!r}: {error}") from None
    if "/" in video_id or "\\" in video_id or ".." in video_id:
        raise WtalError(f"{source}: video {video_id!r}: an id is part of file names, expected no '/' or '..' in it")
    if len(video_id.encode()) > _LONGEST_ID:
        raise WtalError(f"{source}: video {video_id[:40]!r}...: {len(video_id)} characters, expected a file name")


def in_splits(annotations: Annotations) -> Iterator[tuple[AnnotatedVideo, str]]:
    """The videos for training and testing, each with ``"train"`` or ``"test"``; other videos are left out."""
    roles = split_names({video.subset for video in annotations.videos.values()}, annotations.videos)
    for video in annotations.videos.values():
        if (subset := roles[video.subset]) in ("train", "test"):
            yield video, subset


def assemble(
    name: str,
    layout: str,
    annotations: Annotations,
    candidates: Iterable[Candidate],
    clip: Path | None = None,
    clip_fps: float | None = None,
    dataset: Dataset | None = None,
    allow_missing: bool = False,
    need_clip: bool = False,
) -> VideoSet:
    """A set of the videos whose features exist, with ``annotations.classes`` as the classes.

    Args:
        name: the name of the data set, for messages.
        layout: the layout of its files.
        annotations: the annotations; they give the classes, and their path appears in messages.
        candidates: the videos.
        clip: folder of CLIP features, None if there is none.
        clip_fps: rows of the CLIP features per second, None if unknown.
        dataset: the data set whose file names are used.
        allow_missing: leave out videos without features, and training videos without a label.
        need_clip: if ``clip`` is given, a video without CLIP features counts as missing.

    Raises:
        WtalError: there are videos to leave out but ``allow_missing`` is False, or no video is left.
    """
    files = Files()
    videos, missing, unlabelled = [], [], []
    looked_for: list[Path] = []
    for candidate in candidates:
        annotated = candidate.annotated
        check_id(annotated.id, annotations.path)
        row = files.pick(clip, file_names(annotated.id, dataset)) if clip else None
        wanted = [*candidate.i3d, *([row] if row and need_clip else [])]
        if absent := [path for path in wanted if path not in files]:
            missing.append(annotated.id)
            looked_for.append(absent[0])
        elif candidate.subset == "train" and not annotated.labels:
            unlabelled.append(annotated.id)
        else:
            videos.append(
                Video(
                    id=annotated.id,
                    subset=candidate.subset,
                    labels=annotated.labels,
                    timebase=candidate.timebase,
                    i3d=candidate.i3d,
                    clip=row if row in files else None,
                    duration=annotated.duration,
                    instances=annotated.instances,
                    clip_fps=clip_fps,
                    origin=candidate.origin,
                    ambiguous=annotated.ambiguous,
                )
            )
    total = len(videos) + len(missing) + len(unlabelled)
    if missing and (not allow_missing or not videos):
        raise WtalError(
            f"{annotations.path}: no features for {len(missing)} of {total} videos ({_few(missing)}), "
            f"expected {looked_for[0]}" + ("; --allow-missing leaves them out" if videos else "")
        )
    if unlabelled and not allow_missing:
        raise WtalError(
            f"{annotations.path}: {len(unlabelled)} training videos have no label ({_few(unlabelled)}), "
            "expected at least one each; --allow-missing leaves them out"
        )
    if not videos:
        raise WtalError(f"{annotations.path}: no training or test videos, expected some")
    notes = []
    if fault := nothing_to_measure([video for video in videos if video.subset == "test"]):
        cure = "list videos with an action under 'test'" if layout == "own" else "a table needs its test part"
        notes.append(f"{annotations.path}: {fault}, so training can tell no mAP; {cure}")
    return VideoSet(
        name,
        layout,
        annotations.classes,
        tuple(videos),
        missing=tuple(missing),
        unlabelled=tuple(unlabelled),
        notes=tuple(notes),
    )


def _few(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")


def read_text_features(path: Path, num_classes: int) -> np.ndarray:
    """The text features in a data set, one row per class in class order: ``[C, D']`` float32, unit norm."""
    rows = load_npy(path)
    if rows.ndim != 2 or rows.dtype.kind != "f" or len(rows) != num_classes:
        raise WtalError(f"{path}: {rows.dtype} of shape {list(rows.shape)}, expected floating point [{num_classes}, D]")
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise WtalError(f"{path}: a row is zero or not finite, expected one direction a class")
    return (rows / norms).astype(np.float32)
