"""Why detections are wrong and instances missed: the taxonomy of DETAD.

Alwassel et al., "Diagnosing Error in Temporal Action Detectors" (ECCV 2018). A detection is, by the first of these
that holds at tIoU threshold alpha:

* **true positive**: the evaluation matched it to an instance of its class;
* **double detection**: it overlaps an instance of its class by alpha or more, but a better detection took that one;
* **wrong label**: it overlaps an instance of another class by alpha or more;
* **localization**: it overlaps an instance of its class by 0.1 or more;
* **confusion**: it overlaps an instance of another class by 0.1 or more;
* **background**: none of these.

DETAD looks at the instance of highest tIoU only; asking in the order above differs where instances of two classes lie
at the same place (THUMOS14: every CliffDiving is also Diving), where it would call a true positive a wrong label.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KINDS = ("true positive", "double detection", "wrong label", "localization", "confusion", "background")
NEAR = 0.1
"""Overlap below which a detection has nothing to do with an instance."""

RANKS = 10
"""Detections are counted up to rank 10 G, where G is the number of instances of their class."""


@dataclass(frozen=True)
class Matched:
    """Detections and instances of the same videos and classes, and which took which.

    Attributes:
        segments: ``[D, 2]``, in the unit of ``truth``.
        scores: ``[D]``.
        video, label: int ``[D]``.
        truth: instances ``[G, 2]``.
        truth_video, truth_label: int ``[G]``.
        instance: int ``[D]``, the instance that a detection was matched to, -1 for none.
        classes: number of classes.
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
        """Rank of each detection in its class by falling score, from 0, in units of the class's instances."""
        ranks = np.empty(len(self.scores))
        counts = np.bincount(self.truth_label, minlength=self.classes)
        for label in range(self.classes):
            own = np.flatnonzero(self.label == label)
            own = own[np.argsort(-self.scores[own], kind="stable")]
            ranks[own] = np.arange(len(own)) / max(counts[label], 1)
        return ranks


def overlaps(segments: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """tIoU of every pair: ``[D, 2]`` and ``[G, 2]`` -> ``[D, G]``; of two equal points 1."""
    start = np.maximum(segments[:, None, 0], truth[None, :, 0])
    end = np.minimum(segments[:, None, 1], truth[None, :, 1])
    shared = np.clip(end - start, 0, None)
    union = (segments[:, 1] - segments[:, 0])[:, None] + (truth[:, 1] - truth[:, 0])[None] - shared
    same = (segments[:, None] == truth[None]).all(-1)
    ratio: np.ndarray = np.where(union > 0, shared / np.where(union > 0, union, 1), same.astype(float))
    return ratio


def error_kinds(matched: Matched, alpha: float) -> np.ndarray:
    """Index into :data:`KINDS` of each detection, int64 ``[D]``."""
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
    """Detections of each kind whose rank lies in [r, r + 1) times their class's instances: ``[RANKS, kinds]``."""
    ranks = matched.ranks()
    return np.stack([np.bincount(kinds[(ranks >= r) & (ranks < r + 1)], minlength=len(KINDS)) for r in range(RANKS)])


@dataclass(frozen=True)
class Bin:
    """Instances whose length or number lies in a range, and how many of them no detection was matched to."""

    name: str
    instances: int
    missed: int


def missed_by(values: np.ndarray, detected: np.ndarray, edges: Sequence[float], names: Sequence[str]) -> list[Bin]:
    """Missed instances by a property of theirs.

    Args:
        values: ``[G]``.
        detected: bool ``[G]``.
        edges: E ascending numbers; a bin reaches up to and including the first, above it up to the second, ..., above
            the last.
        names: of the E + 1 bins.
    """
    place = np.searchsorted(edges, values)
    return [
        Bin(name, int((place == index).sum()), int(((place == index) & ~detected).sum()))
        for index, name in enumerate(names)
    ]


def length_names(edges: Sequence[float]) -> list[str]:
    """Names of the bins of lengths in seconds."""
    between = [f"{a:g}–{b:g} s" for a, b in itertools.pairwise(edges)]
    return [f"≤ {edges[0]:g} s", *between, f"> {edges[-1]:g} s"]


def length_edges(seconds: np.ndarray) -> tuple[float, ...]:
    """Edges of the length bins: DETAD's for ActivityNet where instances are as long as there, else THUMOS14's."""
    return (30, 60, 120, 180) if len(seconds) and np.median(seconds) > 18 else (3, 6, 12, 18)


COUNT_EDGES, COUNT_NAMES = (1, 3, 7, 15), ("1", "2–3", "4–7", "8–15", "> 15")
"""Edges and names of the bins by number of instances of the class in the video."""


def siblings(matched: Matched) -> np.ndarray:
    """How many instances of its class an instance's video has, itself among them: int ``[G]``."""
    key = matched.truth_video * matched.classes + matched.truth_label
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    result: np.ndarray = counts[inverse]
    return result
