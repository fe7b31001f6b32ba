"""The records that every part of wtal uses: a video, its action instances, and a set of videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wtal.data.ambiguous import Intervals
from wtal.data.timebase import Timebase
from wtal.platform.messages import first_few


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
        labels: the classes that occur, sorted; training uses no other annotation.
        timebase: the positions of the I3D snippets in time.
        i3d: the files whose rows, side by side, are the I3D features ``[T, D]`` (RGB and flow may be separate).
        clip: the file with the CLIP features ``[T', D']``, None if there are none.
        duration: seconds; None if the annotations do not give it.
        instances: ground truth, None for a video without temporal annotation. Never used in training.
        clip_fps: rows of ``clip`` per second, row 0 at second 0; None if the rows evenly cover the I3D snippets.
        snippets: number of snippets in ``i3d``, None if not yet read (:func:`wtal.data.feature_index.with_lengths`).
        clip_rows: the number of rows in ``clip``, None if not yet read.
        origin: the user's file that ``i3d`` was made from, for messages; None if it is ``i3d`` itself.
        ambiguous: intervals in seconds in which an action may or may not take place (:mod:`wtal.data.ambiguous`).
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
        name: the name in messages, e.g. ``"thumos14"``.
        layout: ``"wtalc"``, ``"basnet"``, ``"actionformer"`` or ``"own"``.
        classes: class names; a class's position is its index everywhere.
        videos: all videos whose features exist.
        text_features: ``[C, D']`` float32, unit norm, in the space of the CLIP features. None: CLIP encodes the class
            names instead.
        missing: ids left out because their features were not found (``--allow-missing``).
        unlabelled: ids of training videos left out because they have no label (``--allow-missing``).
        notes: remarks on the data for the user, one sentence each.
        test_notes: remarks on the test videos; they do not apply if a part of the training videos replaces these.
        kinds: folder of ``<id>.npy`` with the ``SnippetKind`` of each snippet, for generated videos. Only for
            evaluation.
    """

    name: str
    layout: str
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    text_features: np.ndarray | None = None
    missing: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    test_notes: tuple[str, ...] = ()
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
    """The reason why mAP cannot be measured on test videos, as part of a message; None if it can."""
    if not test:
        return "no test video"
    if any(video.labels or video.instances for video in test):
        return None
    return f"none of the {len(test)} test videos has an action ({first_few([video.id for video in test])})"
