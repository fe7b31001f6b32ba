"""Writes features and annotations in the three usual layouts, so that the real loaders can read them.

============  ================================================  ==================================================
layout        features                                          annotations
============  ================================================  ==================================================
wtalc         ``Thumos14reduced-I3D-JOINTFeatures.npy``         ``Thumos14reduced-Annotations/*.npy``
basnet        ``features/{train,test}/{rgb,flow}/<id>.npy``     ``gt.json``, ``split_train.txt``, ``split_test.txt``
actionformer  ``i3d_features/<id>.npy``                         ``annotations/thumos14.json``
============  ================================================  ==================================================
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from wtal.data.timebase import Timebase
from wtal.data.video import Instance
from wtal.errors import WtalError

Layout = Literal["wtalc", "basnet", "actionformer"]

WTALC_PREFIX = "Thumos14reduced"
FPS = 25.0


@dataclass(frozen=True)
class Record:
    """The annotation of one generated video; ``instances`` in seconds, sorted by start."""

    id: str
    subset: str
    duration: float
    instances: tuple[Instance, ...]

    @property
    def labels(self) -> list[str]:
        """Classes that occur, sorted."""
        return sorted({instance.label for instance in self.instances})


def check_layout(layout: str) -> None:
    """Raise a :class:`WtalError` for an unknown layout."""
    if layout not in get_args(Layout):
        raise WtalError(f"layout is {layout!r}: expected one of {', '.join(get_args(Layout))}")


def grid(layout: Layout, fps: float = FPS) -> Timebase:
    """The time base of a layout: a snippet every 16 frames at 25 fps; ActionFormer: every 4 at the video's own fps."""
    return Timebase(fps, 4, 16) if layout == "actionformer" else Timebase(FPS, 16, 16)


class FeatureWriter:
    """Writes I3D features ``[T, D]`` video by video; wtalc has one file for all, which :meth:`close` writes."""

    def __init__(self, root: Path, layout: Layout, prefix: str = WTALC_PREFIX) -> None:
        self._root = root
        self._layout = layout
        self._prefix = prefix
        self._joint: list[np.ndarray] = []

    def add(self, video_id: str, subset: str, features: np.ndarray) -> None:
        """Add the next video, in the order of the annotations; ``subset`` is ``"train"`` or ``"test"``."""
        if self._layout == "wtalc":
            self._joint.append(features)
        elif self._layout == "actionformer":
            save_array(self._root / "i3d_features" / f"{video_id}.npy", features)
        else:
            half = features.shape[1] // 2
            folder = self._root / "features" / subset
            save_array(folder / "rgb" / f"{video_id}.npy", features[:, :half])
            save_array(folder / "flow" / f"{video_id}.npy", features[:, half:])

    def close(self) -> None:
        """Write the joint file of wtalc; nothing for the other layouts."""
        if self._layout == "wtalc":
            _save_objects(self._root / f"{self._prefix}-I3D-JOINTFeatures.npy", self._joint)


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one plain ``.npy`` file and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ascontiguousarray(array), allow_pickle=False)


def write_annotations(root: Path, layout: Layout, records: Sequence[Record], classes: Sequence[str]) -> None:
    """The annotation files of one layout."""
    {"wtalc": _write_wtalc, "basnet": _write_basnet, "actionformer": _write_actionformer}[layout](
        root, records, classes
    )


def _write_wtalc(root: Path, records: Sequence[Record], classes: Sequence[str]) -> None:
    folder = root / f"{WTALC_PREFIX}-Annotations"
    subsets = {"train": "validation", "test": "test"}
    text = {
        "videoname": [record.id for record in records],
        "subset": [subsets[record.subset] for record in records],
        "classlist": list(classes),
    }
    for name, values in text.items():
        save_array(folder / f"{name}.npy", np.array([value.encode() for value in values]))
    save_array(folder / "duration.npy", np.array([[record.duration] for record in records]))
    save_array(folder / "original_fps.npy", np.full(len(records), FPS))
    save_array(folder / "extracted_fps.npy", np.full(len(records), 10))  # wrong in the real files too
    objects: dict[str, Sequence[object]] = {
        "segments": [[[i.start, i.end] for i in record.instances] for record in records],
        "labels": [[i.label.encode() for i in record.instances] for record in records],
        "labels_all": [[label.encode() for label in record.labels] for record in records],
    }
    for name, lists in objects.items():
        _save_objects(folder / f"{name}.npy", lists)


def _write_basnet(root: Path, records: Sequence[Record], classes: Sequence[str]) -> None:
    database = {
        record.id: {
            "subset": record.subset,
            "annotations": [{"segment": [str(i.start), str(i.end)], "label": i.label} for i in record.instances],
        }
        for record in records
    }
    (root / "gt.json").write_text(json.dumps({"database": database}), encoding="utf-8")
    for subset in ("train", "test"):
        names = "".join(f"{record.id}\n" for record in records if record.subset == subset)
        (root / f"split_{subset}.txt").write_text(names, encoding="utf-8")


def _write_actionformer(root: Path, records: Sequence[Record], classes: Sequence[str]) -> None:
    subsets = {"train": "Validation", "test": "Test"}
    database = {
        record.id: {
            "subset": subsets[record.subset],
            "duration": record.duration,
            "fps": FPS,
            "annotations": [
                {
                    "label": i.label,
                    "segment": [i.start, i.end],
                    "segment(frames)": [round(i.start * FPS, 1), round(i.end * FPS, 1)],
                    "label_id": list(classes).index(i.label),
                }
                for i in record.instances
            ],
        }
        for record in records
    }
    path = root / "annotations" / "thumos14.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"version": "wtal synthetic", "database": database}), encoding="utf-8")


def _save_objects(path: Path, values: Sequence[object]) -> None:
    """Write an object array ``[len(values)]`` of any values; NumPy stores it as a pickle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    np.save(path, array, allow_pickle=True)
