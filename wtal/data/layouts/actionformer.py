"""The layout of ActionFormer and OpenTAD: one JSON file, one feature file per video, a grid per data set.

``<root>/annotations/thumos14.json`` and ``<root>/i3d_features/<id>.npy``, ``[T, 2048]``. THUMOS14: windows of 16 frames
every 4 frames at each video's native rate, ``second = (index * stride + 0.5 * window) / fps``. The I3D features
of ActivityNet have stride and window 16 at 25 fps (``anet_i3d.yaml`` there), and their file names begin with ``v_``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wtal.data.annotations import AnnotatedVideo, Annotations
from wtal.data.cache import Progress
from wtal.data.layouts.protocol import Candidate, Dataset, Files, file_names, in_splits
from wtal.data.timebase import Timebase
from wtal.errors import WtalError

NAME = "actionformer"


def wanted(dataset: Dataset) -> str:
    """The files that the layout needs."""
    return f"annotations/{' or '.join(dataset.actionformer_truth)}, and i3d_features/<video>.npy"


def truth(root: Path, dataset: Dataset) -> Path | None:
    """The ground-truth file under ``root``."""
    paths = [root / "annotations" / name for name in dataset.actionformer_truth]
    return next((path for path in paths if path.is_file()), None)


def has_features(root: Path, dataset: Dataset) -> bool:
    """Whether there is a folder of features."""
    return (root / "i3d_features").is_dir()


def candidates(
    root: Path, dataset: Dataset, annotations: Annotations, progress: Progress | None
) -> Iterator[Candidate]:
    """The videos of both splits."""
    files = Files()
    for video, subset in in_splits(annotations):
        path = files.pick(root / "i3d_features", file_names(video.id, dataset))
        yield Candidate(video, subset, (path,), dataset.actionformer_grid or native_grid(video, annotations.path))


def native_grid(video: AnnotatedVideo, source: Path) -> Timebase:
    """Stride 4, window 16 at the rate that the annotations give for the video."""
    if video.fps is None:
        raise WtalError(f"{source}: video {video.id}: no 'fps', expected the rate that its features were computed at")
    return Timebase(fps=video.fps, stride=4, window=16)
