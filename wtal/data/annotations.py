"""Reads the usual ground-truth files: every layout gives the same records.

====================  ========================================================================================
kind                  file
====================  ========================================================================================
``basnet``            ``gt.json``: ``{"database": {id: {"subset", "annotations"}}}``, segments as text
``actionformer``      the same with ``duration`` (and ``fps``) for each video, e.g. ``thumos14.json``
``activitynet``       the official file: the same with ``taxonomy``
``bsn``               ``anet_anno_action.json``: ``{"v_" + id: {"duration_second", "annotations", ...}}``; the
                      subsets come from ``video_info_new.csv`` beside it
``wtalc``             a folder ``<Prefix>-Annotations`` of ``.npy`` files, or the folder that holds it
====================  ========================================================================================

Classes that share time: every CliffDiving instance of THUMOS14 (143 in the training subset, 217 in the test
subset) is annotated a second time as Diving, with the same segment. Both are read as annotated: both classes
are among the video's labels for training, and mAP asks for both.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wtal.data.ambiguous import Intervals, beside
from wtal.data.npy import load_npy
from wtal.data.video import Instance
from wtal.errors import WtalError
from wtal.platform import fields
from wtal.platform.folders import visible
from wtal.platform.text import csv_rows

_JSON = "ground truth as JSON ({'database': ...}, or BSN's {video: {'duration_second', 'annotations'}})"


@dataclass(frozen=True)
class AnnotatedVideo:
    """The annotation of one video.

    Attributes:
        id: the video's name, as in the file.
        subset: its subset, as in the file; ``""`` if the file does not give it.
        duration: seconds, None if the file does not give it.
        fps: native frames per second, None if the file does not give it.
        instances: the annotated actions in the file's order; None if the temporal annotation is withheld.
        labels: the classes that occur, sorted. W-TALC has its own video-level labels (``labels_all``), which are
            used if they exist: for 28 of 412 THUMOS14 videos (8 of them for training) they differ from the classes
            of the instances.
        ambiguous: intervals in which an action may or may not take place (:mod:`wtal.data.ambiguous`).
    """

    id: str
    subset: str
    duration: float | None
    fps: float | None
    instances: tuple[Instance, ...] | None
    labels: tuple[str, ...]
    ambiguous: Intervals = ()


@dataclass(frozen=True)
class Annotations:
    """A ground-truth file.

    Attributes:
        path: the file or folder.
        kind: see the table of :mod:`wtal.data.annotations`.
        videos: by id, in the file's order.
        classes: all class names in index order: the order of ``classlist.npy`` (alphabetical in THUMOS14), else sorted.
    """

    path: Path
    kind: str
    videos: dict[str, AnnotatedVideo]
    classes: tuple[str, ...]

    def with_ambiguous(self, intervals: Mapping[str, Intervals]) -> Annotations:
        """The same videos with these ambiguous intervals, by id."""
        videos = {
            video.id: replace(video, ambiguous=intervals[video.id]) if video.id in intervals else video
            for video in self.videos.values()
        }
        return replace(self, videos=videos)

    def split_of(self, video: AnnotatedVideo) -> str:
        """``"train"``, ``"test"``, or the name in the file if the subset is neither (:func:`split_names`)."""
        return split_names({video.subset for video in self.videos.values()}, self.videos)[video.subset]

    def split(self, name: str) -> tuple[AnnotatedVideo, ...]:
        """The videos of one subset, named as in the file (in any case) or as ``"train"`` or ``"test"``."""
        names = split_names({video.subset for video in self.videos.values()}, self.videos)
        wanted = {subset for subset in names if subset.casefold() == name.casefold()}
        wanted = wanted or {subset for subset, split in names.items() if split == name.casefold()}
        return tuple(video for video in self.videos.values() if video.subset in wanted)


def split_names(subsets: Collection[str], ids: Iterable[str] = ()) -> dict[str, str]:
    """The use of each subset of a file: ``"train"``, ``"test"`` or, if it is neither, its own name.

    The word ``validation`` has two opposite meanings. THUMOS14 trains on it and tests on ``test``. ActivityNet trains
    on ``training``, tests on ``validation`` and withholds the annotation of ``testing``. OpenTAD gives the subsets of
    THUMOS14 the names of ActivityNet. So the other subsets of the file decide; if there is no other subset, ``ids``
    decides (``video_validation_...`` is THUMOS14).
    """
    words = {subset: subset.casefold() for subset in subsets}
    there = set(words.values())
    roles = {"train": "train", "training": "train", "test": "test"}
    trained = bool(there & {"train", "training"})
    if "test" in there or (not trained and any(video.startswith("video_validation_") for video in ids)):
        if not trained:
            roles["validation"] = "train"  # THUMOS14; if there is also a training subset, it is neither
    elif "validation" in there:
        roles["validation"] = "test"
    else:
        roles["testing"] = "test"
    return {subset: roles.get(word, subset) for subset, word in words.items()}


def read_annotations(path: str | os.PathLike[str]) -> Annotations:
    """Read a ground-truth file or W-TALC annotation folder of any kind in the table of this module.

    Raises:
        WtalError: no such file, an unknown structure, or a value that is not valid.
    """
    path = Path(path)
    if path.is_dir():
        folder = _wtalc_folder(path)
        joint = _read_wtalc(folder)
        return joint.with_ambiguous(beside(folder, joint.videos))
    content = fields.load_json(path, _JSON)
    subsets = _bsn_subsets(path.with_name("video_info_new.csv")) if _is_bsn(content) else None
    parsed = parse_annotations(content, path, subsets)
    return parsed.with_ambiguous(beside(path.parent, parsed.videos))


def parse_annotations(
    content: object, path: str | os.PathLike[str], subsets: Mapping[str, str] | None = None
) -> Annotations:
    """Like :func:`read_annotations`, for the content of a JSON file.

    Args:
        content: the parsed JSON.
        path: the name of the file in messages.
        subsets: the subset of each video by id, which BSN keeps in a separate file.
    """
    path = Path(path)
    videos: dict[str, AnnotatedVideo] = {}
    if _is_bsn(content):
        kind, records = "bsn", content
    elif isinstance(content, Mapping) and isinstance(content.get("database"), Mapping):
        records = content["database"]
        timed = any(isinstance(record, Mapping) and "duration" in record for record in records.values())
        kind = "activitynet" if "taxonomy" in content else "actionformer" if timed else "basnet"
    else:
        raise WtalError(f"{path}: unknown structure {fields.shown(content)}, expected {_JSON}")
    assert isinstance(records, Mapping)
    for video_id, record in records.items():
        try:
            fields.name(video_id, "its id")
            if kind == "bsn":
                videos[video_id] = _bsn_video(video_id, record, (subsets or {}).get(video_id, ""))
            else:
                videos[video_id] = _database_video(video_id, record)
        except ValueError as error:
            raise WtalError(f"{path}: video {video_id!r}: {error}") from None
    return Annotations(path, kind, videos, _classes(videos.values()))


def _classes(videos: Iterable[AnnotatedVideo]) -> tuple[str, ...]:
    return tuple(sorted({label for video in videos for label in video.labels}))


def _instances(annotations: object) -> tuple[Instance, ...]:
    if not isinstance(annotations, list):
        raise ValueError(f"'annotations' is {fields.shown(annotations)}, expected a list")
    instances = []
    for index, annotation in enumerate(annotations):
        try:
            label = fields.name(fields.take(annotation, "label", "a class name"), "label")
            start, end = fields.segment(fields.take(annotation, "segment", "[start, end] in seconds"))
        except ValueError as error:
            raise ValueError(f"annotation {index}: {error}") from None
        instances.append(Instance(start, end, label))
    return tuple(instances)


def _video(
    video_id: str, subset: str, duration: float | None, fps: float | None, instances: tuple[Instance, ...]
) -> AnnotatedVideo:
    """A video whose labels are the classes of its instances; no instances in a withheld subset means unknown."""
    withheld = not instances and subset.casefold() in ("testing", "")
    labels = tuple(sorted({instance.label for instance in instances}))
    return AnnotatedVideo(video_id, subset, duration, fps, None if withheld else instances, labels)


def _optional(record: Mapping[str, Any], key: str) -> float | None:
    value = record.get(key)
    return None if value is None else _positive(value, key)


def _positive(value: object, what: str) -> float:
    parsed = fields.number(value, what)
    if parsed <= 0:
        raise ValueError(f"{what} is {parsed:g}, expected a number above 0")
    return parsed


def _database_video(video_id: str, record: object) -> AnnotatedVideo:
    subset = fields.name(fields.take(record, "subset", "e.g. 'train' or 'test'"), "subset")
    instances = _instances(fields.take(record, "annotations", "a list of {'segment', 'label'}"))
    assert isinstance(record, Mapping)
    return _video(video_id, subset, _optional(record, "duration"), _optional(record, "fps"), instances)


# ---- BSN -----------------------------------------------------------------------------------------


def _is_bsn(content: object) -> bool:
    if not isinstance(content, Mapping) or not content or "database" in content:
        return False
    return all(isinstance(record, Mapping) and "annotations" in record for record in content.values())


def _bsn_video(video_id: str, record: Mapping[str, Any], subset: str) -> AnnotatedVideo:
    duration = _positive(fields.take(record, "duration_second", "seconds"), "duration_second")
    frames = _optional(record, "duration_frame")
    fps = None if frames is None else frames / duration
    return _video(video_id, subset, duration, fps, _instances(record["annotations"]))


def _bsn_subsets(path: Path) -> dict[str, str]:
    """The subset of each video from ``video_info_new.csv``; empty if there is no such file."""
    if not path.exists():
        return {}
    rows = csv_rows(path, ("video", "subset"), "BSN's video list as CSV (video, subset, ...)")
    return {video: subset for _, (video, subset) in rows}


# ---- W-TALC --------------------------------------------------------------------------------------


def _wtalc_folder(root: Path) -> Path:
    if (root / "videoname.npy").exists():
        return root
    folders = (path for path in visible(root) if path.name.endswith("-Annotations"))
    complete = [folder for folder in folders if (folder / "videoname.npy").exists()]
    if len(complete) != 1:
        has = f"{len(complete)} of them" if complete else "none"
        raise WtalError(
            f"{root}: {has} found, expected videoname.npy or one folder such as Thumos14reduced-Annotations/ "
            "or ActivityNet1.2-Annotations/ with it"
        )
    return complete[0]


def _read_wtalc(folder: Path) -> Annotations:
    """Parallel arrays, one entry per video: name, subset, segments, their labels, all labels, duration, fps."""
    ids = [_text(value, folder / "videoname.npy") for value in _column(folder, "videoname")]
    classes = tuple(_text(value, folder / "classlist.npy") for value in _column(folder, "classlist"))
    subset, segments, labels = (_column(folder, key, len(ids)) for key in ("subset", "segments", "labels"))
    every, duration, fps = (
        _column(folder, key, len(ids)) if (folder / f"{key}.npy").exists() else [None] * len(ids)
        for key in ("labels_all", "duration", "original_fps")
    )
    videos: dict[str, AnnotatedVideo] = {}
    for index, video_id in enumerate(ids):
        try:
            if len(segments[index]) != len(labels[index]):
                counts = f"{len(segments[index])} segments and {len(labels[index])} labels"
                raise ValueError(f"{counts}, expected one label a segment")
            pairs = zip(segments[index], labels[index], strict=True)
            video = _video(
                video_id,
                fields.name(subset[index], "subset"),
                _optional({"duration": duration[index]}, "duration"),
                _optional({"original_fps": fps[index]}, "original_fps"),
                _instances([{"segment": segment, "label": label} for segment, label in pairs]),
            )
            if (own_labels := every[index]) is not None:
                own = {fields.name(label, "label") for label in own_labels}
                video = replace(video, labels=tuple(sorted(own)))
            unknown = {*video.labels, *(i.label for i in video.instances or ())} - set(classes)
            if unknown:
                raise ValueError(f"class {min(unknown)!r}, expected one of {len(classes)} in classlist.npy")
        except (TypeError, ValueError) as error:
            raise WtalError(f"{folder}: video {video_id!r}: {error}") from None
        videos[video_id] = video
    if len(videos) != len(ids):
        raise WtalError(f"{folder / 'videoname.npy'}: a video is named twice, expected {len(ids)} names")
    return Annotations(folder, "wtalc", videos, classes)


def _column(folder: Path, key: str, count: int | None = None) -> list[Any]:
    path = folder / f"{key}.npy"
    array = load_npy(path)
    if array.shape[1:] == (1,) and array.dtype != object:
        array = array[:, 0]  # durations are a column [N, 1]
    # A newer NumPy saves lists of equal lengths as one object array with more dimensions.
    if array.ndim < 1 or (array.ndim > 1 and array.dtype != object) or len(array) != (count or len(array)):
        wanted = "[N]" if count is None else f"[{count}], one entry for each name in videoname.npy"
        raise WtalError(f"{path}: shape {list(array.shape)}, expected {wanted}")
    return list(array)


def _text(value: object, path: Path) -> str:
    try:
        return fields.name(value, "entry")
    except ValueError as error:
        raise WtalError(f"{path}: {error}") from None
