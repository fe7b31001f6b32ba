"""The records that every part of wtal passes around: a video, its action instances, and a set of videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wtal.data.ambiguous import Intervals
from wtal.data.timebase import Timebase


@dataclass(frozen=True)
class Instance:
    """One annotated action: ``start`` and ``end`` in seconds, ``label`` a class name."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Video:
    """One video of a data set.

    Attributes:
        id: the name that annotation files and feature files share.
        subset: ``"train"`` or ``"test"``.
        labels: the classes that occur, sorted; all that training sees.
        timebase: where its I3D snippets lie in time.
        i3d: the files whose rows, side by side, are the I3D features ``[T, D]`` (RGB and flow may be apart).
        clip: the file with the CLIP features ``[T', D']``, None where there are none.
        duration: seconds; None where the annotations do not say.
        instances: ground truth, None for a video without temporal annotation. Never read in training.
        clip_fps: rows of ``clip`` a second, row 0 at second 0; None where they evenly cover the I3D snippets.
        snippets: how many ``i3d`` has, None where nobody looked yet (:func:`wtal.data.feature_index.with_lengths`).
        clip_rows: likewise of ``clip``.
        origin: where the user has what ``i3d`` holds, for messages; None where that is ``i3d`` itself.
        ambiguous: where nobody knows whether an action takes place, in seconds (:mod:`wtal.data.ambiguous`).
    """

    id: str
    subset: str
    labels: tuple[str, ...]
    timebase: Timebase
    i3d: tuple[Path, ...]
    clip: Path | None = None
    duration: float | None = None
    instances: tuple[Instance, ...] | None = None
    clip_fps: float | None = None
    snippets: int | None = None
    clip_rows: int | None = None
    origin: str | None = None
    ambiguous: Intervals = ()


@dataclass(frozen=True)
class VideoSet:
    """A data set: its classes in index order and its videos.

    Attributes:
        name: for people, e.g. ``"thumos14"``.
        layout: ``"wtalc"``, ``"basnet"``, ``"actionformer"`` or ``"own"``.
        classes: class names; a class's position is its index everywhere.
        videos: all videos whose features are there.
        text_features: ``[C, D']`` float32, unit norm, in the space of the CLIP features, where the data set brings
            them in place of class names for CLIP to encode.
        missing: ids left out because their features were not found (``--allow-missing``).
        unlabelled: ids of training videos left out because they have no label (``--allow-missing``).
        notes: what a person should know of the data, a sentence each.
        kinds: folder of ``<id>.npy``, what each snippet shows (``SnippetKind``), of generated videos. For measuring.
    """

    name: str
    layout: str
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    text_features: np.ndarray | None = None
    missing: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    kinds: Path | None = None

    @property
    def has_clip(self) -> bool:
        """Whether every video has CLIP features."""
        return bool(self.videos) and all(video.clip is not None for video in self.videos)

    def subset(self, name: str) -> tuple[Video, ...]:
        """The videos of one subset, in the data set's order."""
        return tuple(video for video in self.videos if video.subset == name)

    def multi_hot(self, video: Video) -> np.ndarray:
        """Video-level labels of one video: ``[C]`` float32 of zeros and ones."""
        target = np.zeros(len(self.classes), dtype=np.float32)
        target[[self.classes.index(label) for label in video.labels]] = 1.0
        return target

    def __iter__(self) -> Iterator[Video]:
        return iter(self.videos)

    def __len__(self) -> int:
        return len(self.videos)


def nothing_to_measure(test: Sequence[Video]) -> str | None:
    """Why no mAP can be measured on test videos, for the middle of a message; None where one can be."""
    if not test:
        return "no test video"
    if any(video.labels or video.instances for video in test):
        return None
    ids = ", ".join(video.id for video in test[:3]) + (", ..." if len(test) > 3 else "")
    return f"none of the {len(test)} test videos has an action ({ids})"
