"""The inputs of an evaluation: converts predictions and ground truth of every accepted form to arrays."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from wtal.data.ambiguous import FILE, Intervals, is_ambiguous
from wtal.data.annotations import AnnotatedVideo, Annotations, parse_annotations
from wtal.data.ground_truth import read_ground_truth
from wtal.data.predictions import Predictions, check_predictions, parse_predictions, read_predictions
from wtal.data.video import Instance, Video
from wtal.errors import WtalError
from wtal.evaluation.wtalc_grid import meets
from wtal.platform import fields


@dataclass(frozen=True)
class Pairs:
    """D detections and G instances in the same videos and classes.

    Attributes:
        subset: the name of the evaluated subset in the ground truth, ``"all"`` if it has no subsets.
        videos: the ids of its temporally annotated videos; a position here is a video index.
        classes: the names of the classes that have instances in these videos, sorted; a position here is a class index.
        segments: detections in seconds, float64 ``[D, 2]``.
        scores: float64 ``[D]``.
        video_index: int64 ``[D]``; ``len(videos)`` for a video that is not in ``videos``.
        class_index: int64 ``[D]``.
        truth_segments: instances in seconds, float64 ``[G, 2]``.
        truth_video_index: int64 ``[G]``.
        truth_class_index: int64 ``[G]``.
        notes: the differences between detections and ground truth, one sentence each.
    """

    subset: str
    videos: tuple[str, ...]
    classes: tuple[str, ...]
    segments: np.ndarray
    scores: np.ndarray
    video_index: np.ndarray
    class_index: np.ndarray
    truth_segments: np.ndarray
    truth_video_index: np.ndarray
    truth_class_index: np.ndarray
    notes: tuple[str, ...]


AMBIGUOUS = ("keep", "drop")

Annotated = TypeVar("Annotated", AnnotatedVideo, Video)


def pair(predictions: object, ground_truth: object, subset: str | None, ambiguous: str = "keep") -> Pairs:
    """Convert predictions and a subset of the ground truth to arrays; see :func:`wtal.evaluate`."""
    truth = _truth(ground_truth)
    name, chosen = _select(truth, subset)
    unclear: dict[str, np.ndarray] = {}
    if ambiguous == "drop":
        chosen, unclear = _apart(truth, chosen)
    videos = {video.id: index for index, video in enumerate(v for v in chosen if v.instances is not None)}
    instances = [(videos[video.id], instance) for video in chosen for instance in video.instances or ()]
    if not instances:
        raise WtalError(
            f"{truth.path}: subset {name} has {len(chosen)} videos, {len(videos)} of them temporally annotated, and "
            "no instance, expected at least one"
        )
    classes = {label: index for index, label in enumerate(sorted({instance.label for _, instance in instances}))}

    columns: list[tuple[float, float, float, int, int]] = []
    notes = _Notes(name, truth, videos, {video.id for video in chosen}, classes)
    for given, detections in _predictions(predictions).items():
        video = _same_video(given, truth.videos)
        notes.video(given, video, detections)
        if video in notes.withheld:
            continue
        place = videos.get(video, len(videos))
        taken = [detection for detection in detections if detection.label in classes]
        if taken and video in unclear:
            dropped = meets(np.array([(detection.start, detection.end) for detection in taken]), unclear[video])
            notes.dropped(int(dropped.sum()))
            taken = [detection for detection, drop in zip(taken, dropped, strict=True) if not drop]
        columns += (
            (detection.start, detection.end, detection.score, place, classes[detection.label]) for detection in taken
        )
    table = np.array(columns, dtype=np.float64).reshape(-1, 5)
    return Pairs(
        subset=name,
        videos=tuple(videos),
        classes=tuple(classes),
        segments=table[:, :2],
        scores=table[:, 2],
        video_index=table[:, 3].astype(np.int64),
        class_index=table[:, 4].astype(np.int64),
        truth_segments=np.array([(instance.start, instance.end) for _, instance in instances]),
        truth_video_index=np.array([place for place, _ in instances]),
        truth_class_index=np.array([classes[instance.label] for _, instance in instances]),
        notes=(*notes.finished(), *_ambiguous_notes(chosen, ambiguous, notes)),
    )


# ---- the accepted forms ---------------------------------------------------------------------------------


def _predictions(source: object) -> Predictions:
    if isinstance(source, str | os.PathLike):
        return read_predictions(source)
    if not isinstance(source, Mapping):
        raise WtalError(f"predictions are {fields.shown(source)}, expected a path or detections by video id")
    if isinstance(source.get("results"), Mapping):
        return parse_predictions(source, "predictions")
    return check_predictions(source, "predictions")


def _truth(source: object) -> Annotations:
    if isinstance(source, Annotations):
        return source
    if isinstance(source, str | os.PathLike):
        return read_ground_truth(source)
    if isinstance(source, Mapping):
        if not all(isinstance(listed, list | tuple) for listed in source.values()):
            return parse_annotations(source, "ground truth")
        records = [_record(str(video), "", listed) for video, listed in source.items()]
    else:
        videos = [*source] if isinstance(source, Iterable) else [source]
        records = [_record(it.id, it.subset, it.instances, it.ambiguous) for it in videos if isinstance(it, Video)]
        if len(records) < len(videos):
            raise WtalError(f"ground truth is {fields.shown(source)}, expected a path, annotations or videos")
    return Annotations(Path("ground truth"), "records", {video.id: video for video in records}, ())


def _record(video: str, subset: str, listed: Sequence[Any] | None, ambiguous: Intervals = ()) -> AnnotatedVideo:
    instances = None
    if listed is not None:
        try:
            segments = [(*fields.segment((it.start, it.end)), fields.name(it.label, "label")) for it in listed]
        except AttributeError:
            message = f"{fields.shown(listed)}, expected a list of wtal.Detection or of what has start, end and label"
            raise WtalError(f"ground truth: video {video!r}: {message}") from None
        except ValueError as error:
            raise WtalError(f"ground truth: video {video!r}: {error}") from None
        instances = tuple(Instance(*segment) for segment in segments)
    return AnnotatedVideo(video, subset, None, None, instances, (), ambiguous)


def _select(truth: Annotations, subset: str | None) -> tuple[str, tuple[AnnotatedVideo, ...]]:
    """The name of the evaluated subset in the ground truth, and its videos."""
    counts = Counter(video.subset for video in truth.videos.values())
    if not (subset is None or isinstance(subset, str)):
        raise WtalError(f"subset is {fields.shown(subset)}, expected a name")
    if subset is None and set(counts) <= {""}:
        return "all", tuple(truth.videos.values())
    chosen = truth.split(subset or "test")
    if not chosen:
        has = ", ".join(f"{name or 'unnamed'} ({count} videos)" for name, count in counts.items()) or "nothing"
        raise WtalError(f"{truth.path}: no subset {subset or 'test'!r}, it has: {has}")
    return "+".join(sorted({video.subset for video in chosen})), chosen


def _apart(
    truth: Annotations, chosen: Sequence[AnnotatedVideo]
) -> tuple[tuple[AnnotatedVideo, ...], dict[str, np.ndarray]]:
    """The videos without their instances labelled as ambiguous; and the ambiguous intervals ``[M, 2]`` by video id."""
    if not has_ambiguous(truth.videos.values()):
        raise WtalError(
            f"{truth.path}: ambiguous 'drop', but there is no interval: expected {FILE} beside it, or a label Ambiguous"
        )
    videos = tuple(without_ambiguous(video) for video in chosen)
    return videos, {video.id: np.array(video.ambiguous, dtype=np.float64) for video in videos if video.ambiguous}


def without_ambiguous(video: Annotated) -> Annotated:
    """A video under ambiguous 'drop': the instances labelled as ambiguous are ambiguous intervals, and no class."""
    left = None
    if video.instances is not None:
        left = tuple(instance for instance in video.instances if not is_ambiguous(instance.label))
    labels = tuple(label for label in video.labels if not is_ambiguous(label))
    intervals = (*video.ambiguous, *((instance.start, instance.end) for instance in _labelled(video)))
    return replace(video, instances=left, labels=labels, ambiguous=intervals)


def has_ambiguous(videos: Iterable[AnnotatedVideo | Video]) -> bool:
    """Whether any video has an ambiguous interval."""
    return any(video.ambiguous or _labelled(video) for video in videos)


def _labelled(video: AnnotatedVideo | Video) -> list[Instance]:
    return [instance for instance in video.instances or () if is_ambiguous(instance.label)]


def _ambiguous_notes(chosen: Sequence[AnnotatedVideo], ambiguous: str, notes: _Notes) -> list[str]:
    """Notes on the use of ambiguous intervals."""
    if ambiguous == "drop":
        return [f"{notes.unclear} detections that meet an ambiguous interval were dropped, as CO2-Net and P-MIL do"]
    return unused_ambiguous(chosen)


def unused_ambiguous(videos: Sequence[AnnotatedVideo | Video]) -> list[str]:
    """Notes on ambiguous intervals that are not used, one sentence each; empty if there are none."""
    notes = []
    if there := [video for video in videos if video.ambiguous]:
        notes.append(
            f"{sum(len(video.ambiguous) for video in there)} ambiguous intervals in {len(there)} videos ({FILE}) are "
            "not used; ambiguous 'drop' drops the detections that meet them, as CO2-Net and P-MIL do"
        )
    if count := sum(len(_labelled(video)) for video in videos):
        notes.append(
            f"{count} instances are labelled 'Ambiguous', and count as a class of its own; ambiguous 'drop' takes them "
            "for intervals where nobody knows"
        )
    return notes


def _same_video(given: str, known: Mapping[str, object]) -> str:
    """The id of a predicted video in the ground truth; BSN's files have ``v_`` before ActivityNet ids."""
    if given not in known:
        for other in (f"v_{given}", given.removeprefix("v_")):
            if other in known:
                return other
    return given


# ---- notes on differences -------------------------------------------------------------------------------


class _Notes:
    """Counts the differences between predictions and ground truth, and writes notes on them."""

    def __init__(
        self,
        subset: str,
        truth: Annotations,
        annotated: Mapping[str, int],
        chosen: set[str],
        classes: Mapping[str, int],
    ) -> None:
        self.withheld = chosen - set(annotated)
        self._subset, self._truth, self._annotated, self._classes = subset, truth, annotated, classes
        self._renamed = 0
        self._seen: set[str] = set()
        self._labels: Counter[str] = Counter()
        self._outside: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self.unclear = 0

    def video(self, given: str, video: str, detections: Sequence[Any]) -> None:
        """Count the detections of one predicted video."""
        self._renamed += given != video
        if video in self._annotated:
            self._seen.add(video)
        elif detections:
            (self._left_out if video in self.withheld else self._outside)[video] += len(detections)
        self._labels.update(detection.label for detection in detections)

    def dropped(self, count: int) -> None:
        """Count detections that were dropped because they meet an ambiguous interval."""
        self.unclear += count

    def finished(self) -> tuple[str, ...]:
        """The notes, one sentence each.

        Raises:
            WtalError: predictions and a ground-truth file have no video or no class in common.
        """
        unknown = {label: count for label, count in self._labels.items() if label not in self._classes}
        self._check_common(unknown)
        notes = []
        if self._renamed:
            notes.append(f"{self._renamed} video ids differ by the prefix 'v_' alone and were taken for the same")
        if self._outside:
            notes.append(
                f"{self._outside.total()} detections in {len(self._outside)} videos that the subset lacks are false "
                f"positives: {_some(self._outside)}"
            )
        if self._left_out:
            notes.append(
                f"{self._left_out.total()} detections in {len(self._left_out)} videos without temporal annotation "
                f"were left out: {_some(self._left_out)}"
            )
        if unknown:
            notes.append(
                f"{sum(unknown.values())} detections of {len(unknown)} classes without ground truth in the subset "
                f"change nothing: {_some(unknown, self._classes)}"
            )
        if silent := len(self._annotated) - len(self._seen):
            notes.append(f"{silent} of {len(self._annotated)} videos are not among the predictions")
        if missed := [label for label in self._classes if label not in self._labels]:
            notes.append(f"{len(missed)} of {len(self._classes)} classes have no detection: {_some(missed)}")
        count = len(self._annotated)
        if 210 <= count <= 213 and all(video.startswith("video_test_") for video in self._annotated):
            notes.append(f"THUMOS14 numbers are published on 210, 211, 212 or 213 test videos, this is on {count}")
        return tuple(notes)

    def _check_common(self, unknown: Mapping[str, int]) -> None:
        # Records from Python are not checked: a small model may find no correct class in a few videos.
        if not self._labels or self._truth.kind == "records":
            return
        if not self._seen:
            others = Counter(self._truth.videos[video].subset for video in self._outside if video in self._truth.videos)
            there = "".join(f", but {count} are in subset {name}" for name, count in others.most_common(1))
            raise WtalError(
                f"none of the predicted videos ({_some([*self._outside, *self._left_out])}) is annotated in subset "
                f"{self._subset} of {self._truth.path}{there}"
            )
        if set(self._labels).isdisjoint(self._truth.classes):
            raise WtalError(
                f"none of the predicted classes ({_some(unknown, self._truth.classes)}) is a class of "
                f"{self._truth.path} ({_some(self._truth.classes)})"
            )


def _some(names: Iterable[str], known: Collection[str] = ()) -> str:
    """The first few names, each with the most similar known name."""
    listed = [*names]
    return ", ".join(fields.meant(name, known) for name in listed[:3]) + (
        f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    )
