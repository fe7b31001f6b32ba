"""Measures statistics of features and annotation that generated data should share with real data.

Everything is measured on training videos with temporal annotation; no network is trained. First the features are
standardised over all snippets. Probes are ridge regressions, cross-validated by video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LAGS = (1, 2, 4, 8, 16, 32)
DISTANCES = (1, 2, 4, 8, 16)
PARTS = 5
"""Number of parts of the videos, for cross-validation."""
RIDGE = 0.05
"""Added to the diagonal of the (standardised) covariance."""
FAR = 16
"""Background is far from the action if the distance is more than this many snippets."""

Instances = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Measured:
    """One video.

    Attributes:
        features: ``[T, D]``.
        instances: (start, end, class) in snippets, half open.
    """

    features: np.ndarray
    instances: Instances

    @property
    def classes(self) -> np.ndarray:
        """``[T]``: the class of each snippet, -1 for background; where instances overlap, the last one."""
        found = np.full(len(self.features), -1)
        for start, end, label in self.instances:
            found[start:end] = label
        return found


def describe(videos: Sequence[Measured]) -> dict[str, float]:
    """All figures of a data set by name, in the order of the table.

    Args:
        videos: at least :data:`PARTS`, each with an instance.
    """
    every = np.concatenate([video.features for video in videos]).astype(np.float64)
    mean, deviation = every.mean(0), every.std(0) + 1e-6
    rows = [(video.features - mean) / deviation for video in videos]
    truth = [video.classes for video in videos]
    return {
        **_lengths(videos),
        **_variance(rows, truth, videos),
        **_dimensions(rows),
        **_autocorrelation(rows, truth),
        **_probes(rows, truth),
    }


def describe_zero_shot(videos: Sequence[Measured], text: np.ndarray) -> dict[str, float]:
    """How well the cosine with a class's text detects the class, without training.

    A snippet counts as detected if its cosine is above one half of the cosine's range in the video.

    Args:
        videos: CLIP features, each video with an instance.
        text: ``[C, D]``, the text feature of each class, of unit norm.
    """
    cosines = [video.features @ text.T / np.linalg.norm(video.features, axis=1, keepdims=True) for video in videos]
    usual = np.concatenate(cosines).mean(0)
    right, areas, missed, detected = 0, [], [], []
    for video, cosine in zip(videos, cosines, strict=True):
        present = {label for _, _, label in video.instances}
        right += int((cosine.mean(0) - usual).argmax()) in present
        for label in present:
            own, score = video.classes == label, cosine[:, label]
            if own.any() and not own.all():
                fires = score > (score.min() + score.max()) / 2
                areas.append(_auc(score, own))
                missed.append(1 - fires[own].mean())
                detected.append(fires[~own].mean())
    return {
        "AUC within a video, cosine with the text": float(np.mean(areas)),
        "AUC within a video, cosine with the text, lowest tenth": float(np.percentile(areas, 10)),
        "class right from the mean cosine": right / len(videos),
        "action that the cosine misses": float(np.mean(missed)),
        "other snippets that the cosine detects": float(np.mean(detected)),
    }


def _lengths(videos: Sequence[Measured]) -> dict[str, float]:
    instances = [end - start for video in videos for start, end, _ in video.instances]
    gaps = [
        max(0, b[0] - a[1])
        for video in videos
        for a, b in zip(sorted(video.instances), sorted(video.instances)[1:], strict=False)
    ]
    sizes = [len(video.features) for video in videos]
    counts = [len(video.instances) for video in videos]
    shares = [float((video.classes >= 0).mean()) for video in videos]
    found = {}
    for name, values in (
        ("snippets of a video", sizes),
        ("instances of a video", counts),
        ("share of action in a video", shares),
        ("length of an instance", instances),
        ("gap between instances", gaps),
    ):
        for quantile in (10, 50, 90):
            found[f"{name}, {quantile} %"] = float(np.percentile(values, quantile)) if values else 0.0
    return found


def _variance(rows: list[np.ndarray], truth: list[np.ndarray], videos: Sequence[Measured]) -> dict[str, float]:
    """Shares of the total variance (1 per dimension). Class shares are corrected for chance, like omega squared."""
    total = sum(float((row**2).sum()) for row in rows)
    means = np.stack([row.mean(0) for row in rows])
    sizes = np.array([len(row) for row in rows], dtype=float)
    between = float((sizes[:, None] * means**2).sum())
    action = 0.0
    for row, own in zip(rows, truth, strict=True):
        acting = own >= 0
        if acting.any() and not acting.all():
            share = acting.mean()
            gap = row[acting].mean(0) - row[~acting].mean(0)
            action += len(row) * share * (1 - share) * float((gap**2).sum())
    return {
        "variance between videos": between / total,
        "of it, between classes": _between_classes(means, [video.instances[0][2] for video in videos]),
        "variance within videos": 1 - between / total,
        "of it, action against background": action / max(total - between, 1e-9),
    }


def _between_classes(means: np.ndarray, label: Sequence[int]) -> float:
    labels = np.asarray(label)
    groups = [means[labels == one] for one in np.unique(labels)]
    grand = means.mean(0)
    inside = sum(float(((group - group.mean(0)) ** 2).sum()) for group in groups)
    across = sum(len(group) * float(((group.mean(0) - grand) ** 2).sum()) for group in groups)
    freedom = len(means) - len(groups)
    if freedom < 1:
        return 0.0
    chance = inside / freedom
    return max(0.0, across - (len(groups) - 1) * chance) / max(across + inside + chance, 1e-9)


def _dimensions(rows: list[np.ndarray]) -> dict[str, float]:
    """Effective dimension: the squared sum of the eigenvalues divided by the sum of their squares."""

    def count(matrix: np.ndarray) -> float:
        covariance = matrix.T @ matrix
        return float(np.trace(covariance) ** 2 / (covariance**2).sum())

    return {
        "effective dimension": count(np.concatenate(rows)),
        "effective dimension within videos": count(np.concatenate([row - row.mean(0) for row in rows])),
    }


def _autocorrelation(rows: list[np.ndarray], truth: list[np.ndarray]) -> dict[str, float]:
    """Autocorrelation of features minus their mean over the action (or background) of the video.

    Only pairs of snippets in the same run of action (or background) count.
    """
    found = {}
    for name, wanted in (("background", False), ("action", True)):
        pairs = dict.fromkeys(LAGS, (0.0, 0.0))
        for row, own in zip(rows, truth, strict=True):
            chosen = (own >= 0) == wanted
            if not chosen.any():
                continue
            centred = row - row[chosen].mean(0)
            run = np.cumsum(np.concatenate([[0], np.diff(chosen.astype(int)) != 0]))
            for lag in LAGS:
                same = chosen[lag:] & chosen[:-lag] & (run[lag:] == run[:-lag])
                first, second = centred[:-lag][same], centred[lag:][same]
                product, power = pairs[lag]
                pairs[lag] = (
                    product + float((first * second).sum()),
                    power + float(((first**2).sum() + (second**2).sum()) / 2),
                )
        for lag, (product, power) in pairs.items():
            found[f"autocorrelation in {name}, lag {lag}"] = product / power if power else float("nan")
    return found


def _probes(rows: list[np.ndarray], truth: list[np.ndarray]) -> dict[str, float]:
    """How well and where a linear probe detects the action, and how well background alone predicts the class."""
    labels = np.unique(np.concatenate(truth))
    classes = labels[labels >= 0]
    of_any, of_class, position = [], [], _Positions()
    background_right, action_right, compared = 0, 0, 0
    for part in range(PARTS):
        kept = [i for i in range(len(rows)) if i % PARTS != part]
        x = np.concatenate([rows[i] for i in kept])
        y = np.concatenate([truth[i] for i in kept])
        targets = np.column_stack([y >= 0, *[y == one for one in classes]]).astype(np.float64)
        weights = _ridge(x, targets)
        scene = [i for i in kept if (truth[i] < 0).any()]
        ids = np.stack([[one in truth[i] for one in classes] for i in scene]).astype(np.float64)
        of_scene = _ridge(np.stack([rows[i][truth[i] < 0].mean(0) for i in scene]), ids, 1.0)
        of_action = _ridge(np.stack([rows[i][truth[i] >= 0].mean(0) for i in scene]), ids, 1.0)
        for i in range(part, len(rows), PARTS):
            own = truth[i]
            acting = own >= 0
            if acting.all() or not acting.any():
                continue
            of_any.append(_auc(rows[i] @ weights[0][:, 0] + weights[1][0], acting))
            right = {int(np.flatnonzero(classes == one)[0]) for one in set(own[acting])}
            compared += 1
            background_right += int((rows[i][~acting].mean(0) @ of_scene[0] + of_scene[1]).argmax()) in right
            action_right += int((rows[i][acting].mean(0) @ of_action[0] + of_action[1]).argmax()) in right
            for column in right:
                score = rows[i] @ weights[0][:, 1 + column] + weights[1][1 + column]
                of_class.append(_auc(score, own == classes[column]))
                position.add(score, own == classes[column])
    return {
        "AUC within a video, probe of any action": float(np.mean(of_any)),
        "AUC within a video, probe of the class": float(np.mean(of_class)),
        "AUC within a video, probe of the class, lowest tenth": float(np.percentile(of_class, 10)),
        "class right from the mean of background": background_right / compared,
        "class right from the mean of action": action_right / compared,
        **position.shares(),
    }


def _ridge(x: np.ndarray, y: np.ndarray, ridge: float = RIDGE) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``[D, K]`` and bias ``[K]`` of a regularised linear regression."""
    mean, level = x.mean(0), y.mean(0)
    covariance = (x - mean).T @ (x - mean) / len(x)
    covariance[np.diag_indices_from(covariance)] += ridge
    weights = np.linalg.solve(covariance, (x - mean).T @ (y - level) / len(x))
    return weights, level - mean @ weights


def _auc(score: np.ndarray, wanted: np.ndarray) -> float:
    """The probability that a wanted snippet scores higher than another snippet of its video."""
    ranks = np.empty(len(score))
    ranks[score.argsort(kind="stable")] = np.arange(1, len(score) + 1)
    count = int(wanted.sum())
    return float((ranks[wanted].sum() - count * (count + 1) / 2) / (count * (len(score) - count)))


class _Positions:
    """Collects scores by the distance to the nearest action, and by the position inside it, over videos."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}

    def add(self, score: np.ndarray, acting: np.ndarray) -> None:
        """Add one video's scores of one class; every snippet counts once."""
        distance = _distance(acting)
        inside = _distance(~acting)
        groups: dict[str, np.ndarray] = {
            "action": acting,
            "first and last snippet of an instance": acting & (inside == 1),
            "third snippet of an instance and further in": acting & (inside >= 3),
            "far": ~acting & (distance > FAR),
        }
        low = 0
        for high in DISTANCES:
            groups[_at(low + 1, high)] = ~acting & (distance > low) & (distance <= high)
            low = high
        for name, chosen in groups.items():
            self.parts.setdefault(name, []).extend(score[chosen].tolist())

    def shares(self) -> dict[str, float]:
        """Mean scores on a scale where far background is 0 and the action is 1."""

        def mean(name: str) -> float:
            return float(np.mean(self.parts[name])) if self.parts[name] else float("nan")

        far, action = mean("far"), mean("action")
        return {
            f"score, {name}": (mean(name) - far) / (action - far)
            for name in self.parts
            if name not in ("action", "far")
        }


def _at(low: int, high: int) -> str:
    return f"{low} away" if low == high else f"{low} to {high} away"


def _distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the nearest snippet of ``mask``; 0 inside; larger than any video if ``mask`` is empty."""
    places = np.flatnonzero(mask)
    if not len(places):
        return np.full(len(mask), 1_000_000)
    at = np.arange(len(mask))
    right = np.searchsorted(places, at).clip(max=len(places) - 1)
    left = (np.searchsorted(places, at, side="right") - 1).clip(min=0)
    return np.minimum(abs(places[right] - at), abs(at - places[left]))
