"""Mean average precision of detections against ground truth, under a named protocol.

Average precision is computed as in the official ActivityNet code. The detections of a class in all videos are sorted by
falling score and matched greedily (:func:`wtal.ops.matching.match_detections`, which also defines ties). Average
precision is the area under the interpolated precision-recall curve. mAP at one tIoU is the mean over the classes that
have ground truth in the evaluated subset; ``mean`` is the mean over the tIoU thresholds. All values are percentages, 0
to 100.

**Protocols.** ``seconds`` uses the annotated times. ``snippets`` does as W-TALC and the methods based on it: it rounds
the ground truth, but not the detections, to the grid of 16-frame snippets at 25 fps: ``round(s * 25 / 16)``, halves to
even. The two protocols give different values for the same detections (a difference of 3.7 points at tIoU 0.5 has been
measured), so a value should be reported with its protocol. An instance that rounds to an empty interval counts, but no
detection can match it. Such are 17 of the 3358 test instances of THUMOS14 in 212 videos (16 of 3311 in 210). So the
ground truth evaluated as detections has 100 under ``seconds`` and less under ``snippets``.

**Ambiguous intervals.** CO2-Net and P-MIL drop every detection, of any class, that shares a snippet with an interval of
``Ambiguous_test.txt``. This raises mAP by up to one point. Here it is an option, and a note says if such intervals are
not used.

**Test sets.** Published THUMOS14 numbers use 210 to 213 test videos. The set of 213 is that of 212 with
video_test_0001292. The set of 210 is that of 212 without video_test_0000270 and video_test_0001496. The set of 211 is
OpenTAD's. The result states the number of videos.

**CliffDiving.** Each of the 217 test instances of CliffDiving in THUMOS14 is also annotated as Diving. They are
evaluated as annotated: a detection counts for the class that it names, and each of the two instances needs its own
detection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wtal.errors import WtalError
from wtal.evaluation.inputs import AMBIGUOUS, pair
from wtal.evaluation.wtalc_grid import on_grid, positions
from wtal.platform import fields

PROTOCOLS = ("seconds", "snippets")
TIOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation, and the data that it was measured on.

    Attributes:
        mean: the mean of ``per_tiou``, percent.
        per_tiou: mAP at each tIoU threshold, percent.
        per_class: average precision of each class that has ground truth, at each tIoU threshold, percent.
        protocol: ``"seconds"`` or ``"snippets"``.
        subset: the name of the evaluated subset in the ground truth; ``"all"`` if it has no subsets.
        videos: the number of its annotated videos, including those without an instance.
        instances: the number of instances in these videos.
        detections: the number of evaluated detections; notes tell about the others.
        notes: remarks on the result, one sentence each.
        ambiguous: ``"keep"``; or ``"drop"`` if detections that meet an ambiguous interval were dropped.
    """

    mean: float
    per_tiou: dict[float, float]
    per_class: dict[str, dict[float, float]]
    protocol: str
    subset: str
    videos: int
    instances: int
    detections: int
    notes: tuple[str, ...] = ()
    ambiguous: str = "keep"

    def to_json(self) -> dict[str, Any]:
        """The result as plain types for ``json.dump``; thresholds become text such as ``"0.5"``."""
        per_class = {label: _named(values) for label, values in self.per_class.items()}
        return {**asdict(self), "per_tiou": _named(self.per_tiou), "per_class": per_class, "notes": [*self.notes]}

    def table(self, per_class: bool = False) -> str:
        """The result as plain text; ``per_class`` adds a line for each class."""
        # Not wtal.evaluation.table.table, which is for terminals: it needs rich, has at most 80 columns and cuts names
        # to fit, while this text goes to files and pipes, as wide as classes and thresholds make it.
        rows = [("mAP", self.per_tiou), *(self.per_class.items() if per_class else ())]
        width = max(len("tIoU"), *(len(name) for name, _ in rows))
        lines = [
            f"mAP in percent, protocol {self.protocol}, subset {self.subset}: {self.videos} videos, "
            f"{self.instances} instances, {self.detections} detections"
            + (", ambiguous ones dropped" if self.ambiguous == "drop" else ""),
            "  ".join([f"{'tIoU':<{width}}", *(f"{tiou:>5g}" for tiou in self.per_tiou), " mean"]),
        ]
        for name, values in rows:
            cells = [*values.values(), float(np.mean([*values.values()]))]
            lines.append("  ".join([f"{name:<{width}}", *(f"{value:5.1f}" for value in cells)]))
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def __str__(self) -> str:
        return self.table()


def evaluate(
    predictions: object,
    ground_truth: object,
    protocol: str = "seconds",
    tiou: float | Iterable[float] | None = None,
    subset: str | None = None,
    ambiguous: str = "keep",
) -> Evaluation:
    """Evaluate temporal action detections.

    Args:
        predictions: the path of a predictions file (:func:`wtal.data.predictions.read_predictions`), the content of
            an official JSON file, or lists of :class:`~wtal.data.predictions.Detection` by video id.
        ground_truth: the path of a ground-truth file or folder (:mod:`wtal.data.annotations`), of a ``dataset.toml`` or
            of its segments file; the content of a JSON annotation file; :class:`~wtal.data.annotations.Annotations`; a
            :class:`~wtal.data.video.VideoSet` or other videos with instances; or lists of
            :class:`~wtal.data.video.Instance` by video id.
        protocol: ``"seconds"`` or ``"snippets"``, see the description of the module.
        tiou: thresholds above 0 and up to 1; None: 0.1 to 0.7. They are rounded to 12 decimals, so that
            ``np.linspace`` gives 0.3 and not 0.30000000000000004.
        subset: a subset of the ground truth, or ``"train"`` or ``"test"``. None: the test part (of ActivityNet:
            ``validation``), or all videos if the ground truth has no subsets.
        ambiguous: ``"drop"`` does as CO2-Net and P-MIL. It drops the detections that share a snippet of 0.64 s with an
            interval of ``Ambiguous_test.txt`` beside the ground truth, or with an instance labelled ``Ambiguous``. Such
            instances are not ground truth then.

    Returns:
        The values, the numbers of videos, instances and detections, and notes. As in the official code, a detection in
        a video outside the subset is a false positive, and a detection of a class without ground truth has no effect.
        Detections in videos without temporal annotation are left out. Notes report all three. Two ids that differ only
        by the prefix ``v_`` are the same video.

    Raises:
        WtalError: a file or value is not valid, the subset does not exist or has no instance, the predictions have no
            video or no class in common with a ground-truth file, or ``"drop"`` is given but there are no ambiguous
            intervals.
    """
    if protocol not in PROTOCOLS:
        raise WtalError(f"protocol {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    if ambiguous not in AMBIGUOUS:
        raise WtalError(f"ambiguous {fields.shown(ambiguous)}, expected one of {', '.join(AMBIGUOUS)}")
    thresholds = _thresholds(tiou)
    pairs = pair(predictions, ground_truth, subset, ambiguous)
    segments, truth_segments, notes = pairs.segments, pairs.truth_segments, [*pairs.notes]
    truth_videos = pairs.truth_video_index
    if protocol == "snippets":
        segments = positions(segments)
        truth_segments, empty = on_grid(truth_segments)
        truth_videos = np.where(empty, -1, truth_videos)  # an index that no detection has
        if empty.any():
            notes.append(f"{empty.sum()} instances round to nothing, so that nothing can match them")

    values = 100 * average_precisions(
        segments,
        pairs.scores,
        pairs.video_index,
        pairs.class_index,
        truth_segments,
        truth_videos,
        pairs.truth_class_index,
        thresholds,
        len(pairs.classes),
    )
    per_tiou = values.mean(axis=0)
    return Evaluation(
        mean=float(per_tiou.mean()),
        per_tiou=dict(zip(thresholds, per_tiou.tolist(), strict=True)),
        per_class={
            label: dict(zip(thresholds, row.tolist(), strict=True))
            for label, row in zip(pairs.classes, values, strict=True)
        },
        protocol=protocol,
        subset=pairs.subset,
        videos=len(pairs.videos),
        instances=len(truth_segments),
        detections=len(segments),
        notes=tuple(notes),
        ambiguous=ambiguous,
    )


def average_precisions(
    segments: np.ndarray,
    scores: np.ndarray,
    videos: np.ndarray,
    classes: np.ndarray,
    truth_segments: np.ndarray,
    truth_videos: np.ndarray,
    truth_classes: np.ndarray,
    tiou: Sequence[float] | np.ndarray,
    class_count: int,
) -> np.ndarray:
    """Average precision of each of C classes at each of K tIoU thresholds, ``[C, K]`` in [0, 1].

    The arguments are those of :func:`wtal.ops.matching.match_detections`; class indices are below ``class_count``. A
    class without ground truth has 0.
    """
    from wtal.ops.matching import match_detections  # imported here, because it imports torch

    hits = (
        match_detections(segments, scores, videos, classes, truth_segments, truth_videos, truth_classes, tiou) >= 0
    )  # [K, D]
    falling, labels = -np.asarray(scores), np.asarray(classes)
    # First by class: NumPy sorts uint16 in linear time. Then each class by falling score.
    by_class = np.argsort(labels.astype(np.uint16) if class_count <= 2**16 else labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=class_count))
    counts = np.bincount(truth_classes, minlength=class_count)
    values = np.zeros((class_count, len(tiou)))
    for index in np.flatnonzero(counts[:class_count]):
        own = by_class[ends[index - 1] if index else 0 : ends[index]]
        own = own[np.argsort(falling[own], kind="stable")]
        values[index] = average_precision(hits[:, own], int(counts[index]))
    return values


def average_precision(hits: np.ndarray, count: int) -> np.ndarray:
    """Area under the interpolated precision-recall curve.

    Args:
        hits: bool ``[K, D]``: at each of K thresholds, whether each detection is a true positive. Detections are sorted
            by falling score.
        count: the number of ground-truth instances, at least 1.

    Returns:
        ``[K]`` in [0, 1]; 0 without detections.
    """
    area = np.zeros(len(hits))
    for row, hit in enumerate(hits):
        # Only the precision at hits is needed: recall rises only there, and the maximum precision to the right of any
        # position is at a hit.
        places = np.flatnonzero(hit)
        precision = np.arange(1, len(places) + 1) / (places + 1)
        # The division comes last, so that a perfect result is exactly 1.
        area[row] = np.maximum.accumulate(precision[::-1]).sum() / count
    return area


def _named(values: Mapping[float, float]) -> dict[str, float]:
    return {f"{tiou:g}": value for tiou, value in values.items()}


def _thresholds(tiou: float | Iterable[float] | None) -> tuple[float, ...]:
    given = TIOU if tiou is None else tiou if isinstance(tiou, Iterable) else (tiou,)
    try:
        unique = tuple(dict.fromkeys(round(float(value), 12) for value in given))
    except (TypeError, ValueError):
        raise WtalError(f"tIoU thresholds {fields.shown(tiou)}, expected numbers") from None
    if not unique or not all(0 < value <= 1 for value in unique):
        raise WtalError(f"tIoU thresholds {fields.shown([*unique])}, expected one or more above 0 and up to 1")
    return unique
