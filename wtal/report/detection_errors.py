"""Kinds of errors and missed instances, with the taxonomy of DETAD.

Alwassel et al., "Diagnosing Error in Temporal Action Detectors" (ECCV 2018). The kind of a detection is the first of
these that applies, at tIoU threshold alpha:

* **true positive**: the evaluation matched it to an instance of its class;
* **double detection**: its tIoU with an instance of its class is alpha or more, but a detection with a higher score was
  matched to this instance;
* **wrong label**: its tIoU with an instance of another class is alpha or more;
* **localization**: its tIoU with an instance of its class is 0.1 or more;
* **confusion**: its tIoU with an instance of another class is 0.1 or more;
* **background**: none of these.

DETAD considers only the instance with the highest tIoU. The result differs if instances of two classes have the same
segment (THUMOS14: every CliffDiving is also Diving): DETAD would then call a true positive a wrong label.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KINDS = ("true positive", "double detection", "wrong label", "localization", "confusion", "background")
NEAR = 0.1
"""The lowest tIoU at which an error is attributed to an instance."""

RANKS = 10
"""Detections are counted up to rank 10 G, where G is the number of instances of their class."""


@dataclass(frozen=True)
class Matched:
    """D detections and G instances of the same videos and classes, and the matching between them.

    Attributes:
        segments: segments of the detections, ``[D, 2]``, in the unit of ``truth``.
        scores: scores of the detections, ``[D]``.
        video: index of the video of each detection, int ``[D]``.
        label: index of the class of each detection, int ``[D]``.
        truth: segments of the instances, ``[G, 2]``.
        truth_video: index of the video of each instance, int ``[G]``.
        truth_label: index of the class of each instance, int ``[G]``.
        instance: index of the instance that each detection was matched to, int ``[D]``; -1 for none.
        classes: the number of classes.
    """

    segments: np.ndarray
    scores: np.ndarray
    video: np.ndarray
    label: np.ndarray
    truth: np.ndarray
    truth_video: np.ndarray
    truth_label: np.ndarray
    instance: np.ndarray
    classes: int

    def ranks(self) -> np.ndarray:
        """The rank of each detection in its class by descending score, divided by the class's number of instances."""
        ranks = np.empty(len(self.scores))
        counts = np.bincount(self.truth_label, minlength=self.classes)
        for label in range(self.classes):
            own = np.flatnonzero(self.label == label)
            own = own[np.argsort(-self.scores[own], kind="stable")]
            ranks[own] = np.arange(len(own)) / max(counts[label], 1)
        return ranks


def overlaps(segments: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The tIoU of every pair: ``[D, 2]`` and ``[G, 2]`` -> ``[D, G]``. Two equal segments of length 0 have tIoU 1."""
    start = np.maximum(segments[:, None, 0], truth[None, :, 0])
    end = np.minimum(segments[:, None, 1], truth[None, :, 1])
    shared = np.clip(end - start, 0, None)
    union = (segments[:, 1] - segments[:, 0])[:, None] + (truth[:, 1] - truth[:, 0])[None] - shared
    same = (segments[:, None] == truth[None]).all(-1)
    ratio: np.ndarray = np.where(union > 0, shared / np.where(union > 0, union, 1), same.astype(float))
    return ratio


def error_kinds(matched: Matched, alpha: float) -> np.ndarray:
    """The kind of each detection as an index into :data:`KINDS`, int64 ``[D]``."""
    kinds = np.full(len(matched.scores), KINDS.index("background"))
    for video in np.unique(matched.video):
        here = np.flatnonzero(matched.video == video)
        there = np.flatnonzero(matched.truth_video == video)
        if not len(there):
            continue
        overlap = overlaps(matched.segments[here], matched.truth[there])
        same = matched.label[here][:, None] == matched.truth_label[there][None]
        own = np.where(same, overlap, 0).max(1)
        other = np.where(same, 0, overlap).max(1)
        kinds[here] = np.select(
            [matched.instance[here] >= 0, own >= alpha, other >= alpha, own >= NEAR, other >= NEAR], range(5), 5
        )
    return kinds


def counts_by_rank(matched: Matched, kinds: np.ndarray) -> np.ndarray:
    """The number of detections of each kind with rank (:meth:`Matched.ranks`) in [r, r + 1): ``[RANKS, kinds]``."""
    ranks = matched.ranks()
    return np.stack([np.bincount(kinds[(ranks >= r) & (ranks < r + 1)], minlength=len(KINDS)) for r in range(RANKS)])


@dataclass(frozen=True)
class Bin:
    """A range of a property of instances: its name, its number of instances, and how many of them are missed.

    An instance is missed if no detection was matched to it.
    """

    name: str
    instances: int
    missed: int


def missed_by(values: np.ndarray, detected: np.ndarray, edges: Sequence[float], names: Sequence[str]) -> list[Bin]:
    """Missed instances by ranges of a property.

    Args:
        values: the property of each instance, ``[G]``.
        detected: whether a detection was matched to the instance, bool ``[G]``.
        edges: E ascending edges of the bins. Each edge belongs to the bin below it; the first and the last bin are
            unbounded.
        names: names of the E + 1 bins.
    """
    place = np.searchsorted(edges, values)
    return [
        Bin(name, int((place == index).sum()), int(((place == index) & ~detected).sum()))
        for index, name in enumerate(names)
    ]


def length_names(edges: Sequence[float]) -> list[str]:
    """Names of the bins by length in seconds."""
    between = [f"{a:g}–{b:g} s" for a, b in itertools.pairwise(edges)]
    return [f"≤ {edges[0]:g} s", *between, f"> {edges[-1]:g} s"]


def length_edges(seconds: np.ndarray) -> tuple[float, ...]:
    """Edges of the bins by length in seconds: DETAD's edges for ActivityNet if the median is above 18 s, else those for
    THUMOS14.
    """
    return (30, 60, 120, 180) if len(seconds) and np.median(seconds) > 18 else (3, 6, 12, 18)


COUNT_EDGES, COUNT_NAMES = (1, 3, 7, 15), ("1", "2–3", "4–7", "8–15", "> 15")
"""Edges and names of the bins by number of instances of the class in the video."""


def siblings(matched: Matched) -> np.ndarray:
    """For each instance, the number of instances of its class in its video, itself included: int ``[G]``."""
    key = matched.truth_video * matched.classes + matched.truth_label
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    result: np.ndarray = counts[inverse]
    return result
