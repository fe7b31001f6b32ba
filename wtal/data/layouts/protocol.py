"""The interface of a layout on disk, and what the layouts share: file names, the feature grid, the two splits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wtal.data.annotations import AnnotatedVideo, Annotations, split_names
from wtal.data.cache import Progress
from wtal.data.timebase import Timebase

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
    """The interface of a layout's module. Layouts are registered in :data:`wtal.data.layouts.registry.LAYOUTS`."""

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
    """An annotated video of subset ``"train"`` or ``"test"``, and the paths of its I3D files.

    ``origin`` is as in :class:`wtal.data.video.Video`.
    """

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


def in_splits(annotations: Annotations) -> Iterator[tuple[AnnotatedVideo, str]]:
    """The videos for training and testing, each with ``"train"`` or ``"test"``; other videos are left out."""
    roles = split_names({video.subset for video in annotations.videos.values()}, annotations.videos)
    for video in annotations.videos.values():
        if (subset := roles[video.subset]) in ("train", "test"):
            yield video, subset
