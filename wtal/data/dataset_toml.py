"""A user's own data set, described by one ``dataset.toml`` (see ``docs/own_data.md``)."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from wtal.data.ambiguous import beside
from wtal.data.annotations import AnnotatedVideo, Annotations
from wtal.data.assemble import assemble
from wtal.data.layouts.protocol import Candidate
from wtal.data.own_files import read_labels, read_segments
from wtal.data.text_features import read_text_features
from wtal.data.timebase import Timebase
from wtal.data.video import Instance, VideoSet
from wtal.errors import WtalError
from wtal.platform import fields
from wtal.platform.text import read_lines, read_text

_KEYS = {
    "name": "text",
    "classes": "a list of class names",
    "i3d": "a folder of <video>.npy, or a list of such folders to put side by side",
    "labels": "a CSV or JSON file of video-level labels",
    "fps": "frames a second of the frames that the features were computed from",
    "stride": "frames from one snippet to the next",
    "window": "frames that one snippet sees",
    "clip": "a folder of <video>.npy with CLIP features",
    "clip_fps": "rows of the CLIP features a second",
    "text_features": "a .npy file with one row of text features a class",
    "segments": "a CSV or JSON file of temporal annotation",
    "train_segments": "a CSV or JSON file of temporal annotation of training videos",
    "test": "a file with one video id a line, or a list of video ids",
}
_NEEDED = ("name", "classes", "i3d", "labels", "fps")


def open_own(path: str | os.PathLike[str], allow_missing: bool = False, need_clip: bool = False) -> VideoSet:
    """Open the data set that a ``dataset.toml`` describes.

    Without ``segments`` no video has instances. Without ``test``, :func:`held_out_fifth` selects the test videos.

    Args:
        path: the TOML file; the paths in it are relative to its folder.
        allow_missing: leave out videos without features, and training videos without a label.
        need_clip: if the file names a folder of CLIP features, a video without CLIP features counts as missing.

    Raises:
        WtalError: an unknown or missing key, an unknown class or video, a missing or malformed file.
    """
    return _Description(Path(path)).open(allow_missing, need_clip)


def read_own_annotations(path: str | os.PathLike[str]) -> Annotations:
    """The annotations in a ``dataset.toml``, without the features.

    Raises:
        WtalError: as for :func:`open_own`, or the file has no ``segments``.
    """
    return _Description(Path(path)).annotations()


class _Description:
    """The checked content of a ``dataset.toml``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = _load(path)
        for key in self.table:
            if key not in _KEYS:
                raise WtalError(f"{path}: unknown key {fields.meant(key, _KEYS)}")
        for key in _NEEDED:
            if key not in self.table:
                raise WtalError(f"{path}: no {key!r}, expected {_KEYS[key]}")
        self.classes = self._names("classes")
        for name in self.classes:
            try:
                fields.name(name, "a class")
            except ValueError as error:
                raise WtalError(f"{path}: {error}") from None
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise WtalError(f"{path}: classes is {fields.shown(self.table['classes'])}, expected different names")

    def annotations(self) -> Annotations:
        if "segments" not in self.table:
            raise WtalError(
                f"{self.path}: no 'segments', expected {_KEYS['segments']}: there is nothing to evaluate against"
            )
        return self._read()

    def open(self, allow_missing: bool, need_clip: bool) -> VideoSet:
        if not isinstance(self.table["name"], str) or not self.table["name"]:
            self._wrong("name")
        if "clip_fps" in self.table and "clip" not in self.table:
            raise WtalError(f"{self.path}: clip_fps without clip, expected both or neither")
        annotations = self._read()
        opened = assemble(
            self.table["name"],
            "own",
            annotations,
            self._candidates(annotations),
            self._folder("clip", self.table["clip"]) if "clip" in self.table else None,
            self._number("clip_fps") if "clip_fps" in self.table else None,
            allow_missing=allow_missing,
            need_clip=need_clip,
        )
        if "text_features" not in self.table:
            return opened
        return replace(opened, text_features=read_text_features(self._path("text_features"), len(self.classes)))

    def _read(self) -> Annotations:
        read = Annotations(self.path, "own", self._videos(), self.classes)
        return read.with_ambiguous(beside(self.path.parent, read.videos))

    def _videos(self) -> dict[str, AnnotatedVideo]:
        labels = self._labels(self._path("labels"))
        test = self._test(labels)
        segments = self._segments(self._path("segments"), labels) if "segments" in self.table else None
        training = self._train_segments(labels, test, segments or {}) if "train_segments" in self.table else {}
        videos = {}
        for video_id, own in labels.items():
            subset = "test" if video_id in test else "train"
            instances = training.get(video_id) if segments is None else segments.get(video_id, training.get(video_id))
            if segments is not None and instances is None and subset == "test":
                if own:
                    raise WtalError(
                        f"{self._path('segments')}: test video {video_id!r} is labelled {own[0]!r} but has no segment, "
                        "expected at least one"
                    )
                instances = ()
            videos[video_id] = AnnotatedVideo(video_id, subset, None, None, instances, own)
        return videos

    def _candidates(self, annotations: Annotations) -> Iterator[Candidate]:
        given = self.table["i3d"]
        folders = [self._folder("i3d", folder) for folder in (given if isinstance(given, list) else [given])]
        if not folders:
            self._wrong("i3d")
        timebase = Timebase(self._number("fps"), self._number("stride", 16), self._number("window", 16))
        for video in annotations.videos.values():
            paths = tuple(folder / f"{video.id}.npy" for folder in folders)
            yield Candidate(video, video.subset, paths, timebase)

    def _labels(self, path: Path) -> dict[str, tuple[str, ...]]:
        """The labels of each video by id, in class order."""
        labels: dict[str, set[str]] = {}
        for where, video_id, names in read_labels(path):
            labels.setdefault(video_id, set()).update(self._class(name, path, where) for name in names)
        return {video_id: tuple(c for c in self.classes if c in names) for video_id, names in labels.items()}

    def _segments(self, path: Path, labels: dict[str, tuple[str, ...]]) -> dict[str, tuple[Instance, ...]]:
        """The instances of each video in the file by id, sorted by start."""
        segments = read_segments(path)
        for video_id, rows in segments.items():
            if video_id not in labels:
                raise WtalError(f"{path}: video {fields.meant(video_id, labels)} is not in {self.table['labels']}")
            for where, instance in rows:
                if self._class(instance.label, path, where) not in labels[video_id]:
                    raise WtalError(
                        f"{path}: video {video_id!r}: a segment of {instance.label!r}, expected one of the video's "
                        f"labels in {self.table['labels']}: {', '.join(labels[video_id]) or 'none'}"
                    )
        return {
            video_id: tuple(sorted((instance for _, instance in rows), key=lambda instance: instance.start))
            for video_id, rows in segments.items()
        }

    def _train_segments(
        self, labels: dict[str, tuple[str, ...]], test: Collection[str], others: Collection[str]
    ) -> dict[str, tuple[Instance, ...]]:
        """The instances of training videos by id; ``others`` are the videos that ``segments`` already annotates."""
        path = self._path("train_segments")
        train = self._segments(path, labels)
        for video_id in train:
            if video_id in test:
                raise WtalError(f"{path}: video {video_id!r} is for testing, expected training videos alone")
            if video_id in others:
                raise WtalError(f"{path}: video {video_id!r} is annotated in {self.table['segments']}, too")
        return train

    def _test(self, labels: Mapping[str, Collection[str]]) -> frozenset[str]:
        if "test" not in self.table:
            return held_out_fifth(labels)
        if isinstance(self.table["test"], list):
            source, ids = self.path, list(self._names("test"))
        else:
            source = self._path("test")
            ids = read_lines(source)
            if not ids:
                raise WtalError(f"{source}: no video id; for training on every video say test = [] in {self.path.name}")
        for video_id in ids:
            if video_id not in labels:
                raise WtalError(
                    f"{source}: test video {fields.meant(video_id, labels)} is not in {self.table['labels']}"
                )
        return frozenset(ids)

    def _class(self, name: object, path: Path, where: str) -> str:
        if not isinstance(name, str) or name not in self.classes:
            known = f"expected one of the {len(self.classes)} classes in {self.path.name}"
            raise WtalError(f"{path}: {where}: unknown class {fields.meant(name, self.classes)}, {known}")
        return name

    def _names(self, key: str) -> tuple[str, ...]:
        value = self.table[key]
        if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
            self._wrong(key)
        return tuple(value)

    def _number(self, key: str, default: float | None = None) -> float:
        value = self.table.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            self._wrong(key, "a number above 0: ")
        return float(value)

    def _path(self, key: str) -> Path:
        if not isinstance(self.table[key], str):
            self._wrong(key)
        path = self.path.parent / self.table[key]
        if not os.path.isfile(path):  # Path.is_file raises if no file can have such a name
            raise WtalError(f"{path}: no such file ({key!r} in {self.path}), expected {_KEYS[key]}")
        return path

    def _folder(self, key: str, value: object) -> Path:
        if not isinstance(value, str):
            self._wrong(key)
        path = self.path.parent / str(value)
        if not os.path.isdir(path):
            raise WtalError(f"{path}: no such folder ({key!r} in {self.path}), expected {_KEYS[key]}")
        return path

    def _wrong(self, key: str, kind: str = "") -> NoReturn:
        raise WtalError(f"{self.path}: {key} is {fields.shown(self.table[key])}, expected {kind}{_KEYS[key]}")


def held_out_fifth(labels: Mapping[str, Collection[str]]) -> frozenset[str]:
    """Select a fifth of the videos for testing, in the order of a hash of their ids.

    A video is skipped if it is the last training video of one of its classes, so that training has every class. With
    two or more videos, at least one is held out and at least one is not. If no held-out video has an action, the next
    video with an action is held out too.

    Args:
        labels: the classes of each video, by id.
    """
    order = sorted(labels, key=lambda video: (hashlib.sha256(video.encode()).digest(), video))
    left = Counter(label for video in labels for label in set(labels[video]))
    wanted = min(max(1, round(len(labels) / 5)), len(labels) - 1)
    held_out: list[str] = []
    for video in order:
        own = set(labels[video])
        if len(held_out) < wanted and all(left[label] > 1 for label in own):
            held_out.append(video)
            left.subtract(own)
    if held_out and not any(labels[video] for video in held_out):  # mAP cannot be measured on background alone
        spare = (video for video in order if labels[video] and all(left[label] > 1 for label in set(labels[video])))
        held_out += list(spare)[:1]
    return frozenset(held_out or order[:wanted])


def _load(path: Path) -> dict[str, Any]:
    return fields.parse_toml(read_text(path), path)
