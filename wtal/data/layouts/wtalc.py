"""The layout of W-TALC, CO2-Net, DELU and P-MIL: parallel annotation arrays and one file with all features.

``<root>/<Prefix>-Annotations/*.npy`` and ``<root>/<Prefix>-I3D-JOINTFeatures.npy``, a pickled object array in the
order of ``videoname.npy``; each entry is ``[T, 2048]``, RGB then flow. 16-frame snippets at 25 fps
(``extracted_fps.npy`` gives 10 for every video, which is wrong). The pickled file is converted once into a cache with
one file per video.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wtal.data.annotations import Annotations
from wtal.data.cache import Progress, per_video_files
from wtal.data.layouts.protocol import GRID, Candidate, Dataset, in_splits

NAME = "wtalc"


def wanted(dataset: Dataset) -> str:
    """The files that the layout needs."""
    return f"{dataset.prefix}-Annotations/*.npy and {dataset.prefix}-I3D-JOINTFeatures.npy"


def truth(root: Path, dataset: Dataset) -> Path | None:
    """The annotation folder under ``root``."""
    folder = root / f"{dataset.prefix}-Annotations"
    return folder if (folder / "videoname.npy").is_file() else None


def has_features(root: Path, dataset: Dataset) -> bool:
    """Whether the joint feature file exists."""
    return _joint(root, dataset).is_file()


def candidates(
    root: Path, dataset: Dataset, annotations: Annotations, progress: Progress | None
) -> Iterator[Candidate]:
    """Every video of the two splits; its features are the cached file at its index in ``videoname.npy``."""
    joint = _joint(root, dataset)
    rows = per_video_files(joint, len(annotations.videos), progress)
    files = {video: (index, path) for index, (video, path) in enumerate(zip(annotations.videos, rows, strict=True))}
    for video, subset in in_splits(annotations):
        index, path = files[video.id]
        yield Candidate(video, subset, (path,), GRID, f"{joint}, entry {index}")


def _joint(root: Path, dataset: Dataset) -> Path:
    return root / f"{dataset.prefix}-I3D-JOINTFeatures.npy"
