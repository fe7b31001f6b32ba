"""The analysis of detections: average precision, precision-recall curves, kinds of errors, and missed instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wtal.data.predictions import Detection
from wtal.data.video import Video
from wtal.evaluation.average_precision import average_precision
from wtal.evaluation.inputs import pair
from wtal.evaluation.wtalc_grid import on_grid, positions
from wtal.report.detection_errors import (
    COUNT_EDGES,
    COUNT_NAMES,
    KINDS,
    Bin,
    Matched,
    counts_by_rank,
    error_kinds,
    length_edges,
    length_names,
    missed_by,
    siblings,
)

RECALLS = np.linspace(0, 1, 101)
"""The recalls at which precision-recall curves are sampled."""

ALPHA = 0.5
"""The tIoU of the error analysis. If the evaluation does not have it, the nearest threshold is used."""


@dataclass(frozen=True)
class Analysis:
    """The analysis of the detections of one source (a branch or the ensemble).

    Attributes:
        classes: the C classes with ground truth.
        tiou: the K tIoU thresholds.
        ap: average precision in percent, ``[C, K]``.
        precision: interpolated precision at :data:`RECALLS`, ``[C, K, 101]`` in [0, 1].
        instances: the number of instances of each class, ``[C]``.
        alpha: the tIoU threshold of the attributes below.
        by_rank: detections by rank and kind, see :func:`wtal.report.detection_errors.counts_by_rank`.
        gains: for each kind of error, the gain in mAP at ``alpha`` if it is removed, in percent points.
        by_length: missed instances by length.
        by_count: missed instances by the number of instances of their class in the video.
        detections: the number of detections.
    """

    classes: tuple[str, ...]
    tiou: tuple[float, ...]
    ap: np.ndarray
    precision: np.ndarray
    instances: np.ndarray
    alpha: float
    by_rank: np.ndarray
    gains: dict[str, float]
    by_length: list[Bin]
    by_count: list[Bin]
    detections: int

    @property
    def mean(self) -> float:
        """mAP in percent: the mean over classes and thresholds."""
        return float(self.ap.mean())


def analyse(
    detections: dict[str, list[Detection]],
    videos: Sequence[Video],
    protocol: str,
    tiou: Sequence[float],
    ambiguous: str = "keep",
) -> Analysis:
    """Match detections and ground truth at every threshold, and analyse the errors.

    Args:
        detections: the detections by video id.
        videos: the test videos, with instances.
        protocol: see :func:`wtal.evaluate`.
        tiou: tIoU thresholds.
        ambiguous: see :func:`wtal.evaluate`.
    """
    from wtal.ops.matching import match_detections

    pairs = pair(detections, videos, "test", ambiguous)
    segments, truth = pairs.segments, pairs.truth_segments
    lengths = truth[:, 1] - truth[:, 0]
    reachable = pairs.truth_video_index
    if protocol == "snippets":
        segments, (truth, empty) = positions(segments), on_grid(truth)
        reachable = np.where(empty, -1, reachable)  # a video index that no detection has
    own = (pairs.video_index, pairs.class_index)
    theirs = (pairs.truth_video_index, pairs.truth_class_index)
    thresholds = tuple(dict.fromkeys(round(float(value), 12) for value in tiou))
    alpha = min(thresholds, key=lambda value: abs(value - ALPHA))
    matched = match_detections(segments, pairs.scores, *own, truth, reachable, theirs[1], thresholds)  # [K, D]
    at_alpha = matched[thresholds.index(alpha)]
    pairing = Matched(segments, pairs.scores, *own, truth, *theirs, at_alpha, len(pairs.classes))
    instances = np.bincount(theirs[1], minlength=len(pairs.classes))
    hits = [_by_score(matched >= 0, pairs.scores, own[1], label) for label in range(len(pairs.classes))]
    kinds = error_kinds(pairing, alpha)
    edges = length_edges(lengths)
    detected = np.zeros(len(truth), dtype=bool)
    detected[at_alpha[at_alpha >= 0]] = True
    return Analysis(
        classes=pairs.classes,
        tiou=thresholds,
        ap=np.stack([100 * average_precision(hit, count) for hit, count in zip(hits, instances, strict=True)]),
        precision=np.stack([precision_at_recalls(hit, count) for hit, count in zip(hits, instances, strict=True)]),
        instances=instances,
        alpha=alpha,
        by_rank=counts_by_rank(pairing, kinds),
        gains=removal_gains(pairing, kinds, instances),
        by_length=missed_by(lengths, detected, edges, length_names(edges)),
        by_count=missed_by(siblings(pairing), detected, COUNT_EDGES, COUNT_NAMES),
        detections=len(segments),
    )


def precision_at_recalls(hits: np.ndarray, count: int) -> np.ndarray:
    """Interpolated precision: for each of :data:`RECALLS`, the highest precision at this recall or a higher one.

    Args:
        hits: whether each detection of one class is a true positive, by descending score, bool ``[K, D]``.
        count: the number of instances.

    Returns:
        ``[K, 101]``.
    """
    if hits.shape[1] == 0:
        return np.zeros((len(hits), len(RECALLS)))
    hits_so_far = np.cumsum(hits, axis=1)
    precision = hits_so_far / np.arange(1, hits.shape[1] + 1)
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    wanted = np.ceil(RECALLS * count - 1e-9)  # the number of true positives for each recall
    rows = []
    for row, best in zip(hits_so_far, highest, strict=True):
        place = np.searchsorted(row, wanted)  # the first detection at which this number is reached
        rows.append(np.where(place < len(row), best[np.minimum(place, len(row) - 1)], 0.0))
    return np.stack(rows)


def removal_gains(matched: Matched, kinds: np.ndarray, instances: np.ndarray) -> dict[str, float]:
    """The gain in mAP, in percent points, if all detections of a kind of error are removed; for each kind."""

    def mean_ap(kept: np.ndarray) -> float:
        hits = (matched.instance >= 0)[None, kept]
        labels, scores = matched.label[kept], matched.scores[kept]
        rows = [_by_score(hits, scores, labels, label) for label in range(matched.classes)]
        return float(np.mean([100 * average_precision(row, n)[0] for row, n in zip(rows, instances, strict=True)]))

    now = mean_ap(np.ones(len(kinds), dtype=bool))
    return {kind: mean_ap(kinds != index) - now for index, kind in enumerate(KINDS) if index}


def _by_score(hits: np.ndarray, scores: np.ndarray, labels: np.ndarray, label: int) -> np.ndarray:
    """The columns of one class by descending score: bool ``[K, D]`` -> ``[K, D of the class]``."""
    own = np.flatnonzero(labels == label)
    return hits[:, own[np.argsort(-scores[own], kind="stable")]]
