"""The table of a run: measures a branch on the test videos, and formats the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wtal.data.features import feature_lengths
from wtal.data.predictions import Detection
from wtal.data.video import VideoSet, nothing_to_measure
from wtal.evaluation.average_precision import evaluate
from wtal.evaluation.snippet_errors import error_rates
from wtal.inference.branches import Branches
from wtal.inference.frame_scores import VideoResult, find
from wtal.platform.device import Device
from wtal.platform.distributed import SINGLE_PROCESS, Processes
from wtal.settings.config import RunConfig

Row = dict[str, Any]
"""``name``, ``branch``, ``kind``, ``videos``, ``protocol``, ``mean`` (percent), and either ``per_tiou`` (percent) and
``snippets`` (:func:`wtal.evaluation.snippet_errors.error_rates`) or, without temporal ground truth,
``proposals_per_video``. ``mean`` is None if no test video has an action."""


def has_ground_truth(data: VideoSet) -> bool:
    """Whether localisation can be measured: every test video has temporal annotation, and one has an action."""
    test = data.subset("test")
    return any(video.instances for video in test) and all(video.instances is not None for video in test)


def measure(
    name: str,
    branch: str,
    branches: Branches,
    data: VideoSet,
    config: RunConfig,
    device: Device,
    processes: Processes = SINGLE_PROCESS,
) -> tuple[Row, dict[str, list[Detection]]]:
    """Measure a branch on the test videos.

    The row has localisation mAP if the test videos have temporal ground truth, otherwise mAP of the video-level labels.
    It has no mAP if no test video has an action. Several processes share the videos.

    Returns:
        the row; and on rank 0 its detections by video id, with the longest video first.
    """
    test = data.subset("test")
    training = branches.training
    branches.eval()
    share = list(find(branches, branch, data, test, config, device, processes.part))
    branches.train(training)
    results = {item.video.id: item for part in processes.gather(share, everywhere=False) for item in part}
    longest_first = [test[index].id for index in np.argsort(-feature_lengths(test), kind="stable")]
    detections: dict[str, list[Detection]] = {}

    def row() -> Row:
        nonlocal detections
        made, detections = _row(name, branch, data, [results[video] for video in longest_first], config)
        return made

    return processes.from_rank_zero(row), detections


def _row(
    name: str, branch: str, data: VideoSet, results: Sequence[VideoResult], config: RunConfig
) -> tuple[Row, dict[str, list[Detection]]]:
    test = data.subset("test")
    detections = {item.video.id: item.detections for item in results}
    row: Row = {"name": name, "branch": branch, "videos": len(test)}
    if has_ground_truth(data):
        asked = config.evaluate
        result = evaluate(detections, test, asked.protocol, asked.tiou, "test", asked.ambiguous)
        return {
            **row,
            "kind": "localization",
            "protocol": result.protocol,
            **({"ambiguous": "drop"} if result.ambiguous == "drop" else {}),
            "mean": result.mean,
            "per_tiou": {f"{tiou:g}": value for tiou, value in result.per_tiou.items()},
            "snippets": error_rates(data, results),
        }, detections
    scores = np.stack([item.video_scores.numpy() for item in results]) if results else np.zeros((0, len(data.classes)))
    labels = np.stack([data.multi_hot(item.video) for item in results]) if results else scores
    return {
        **row,
        "kind": "unmeasured" if nothing_to_measure(test) else "video-level",
        "protocol": "video labels",
        "mean": None if nothing_to_measure(test) else video_level_map(scores, labels),
        "proposals_per_video": sum(map(len, detections.values())) / max(len(detections), 1),
    }, detections


def video_level_map(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean average precision of ranking videos by class probability, in percent.

    Args:
        scores: ``[N, C]`` video-level probabilities.
        labels: ``[N, C]`` zeros and ones.

    Returns:
        the mean over classes that occur; NaN if none does. Equal scores rank in the order of the videos.
    """
    values = []
    for score, label in zip(scores.T, labels.T, strict=True):
        if label.any():
            hits = label[np.argsort(-score, kind="stable")]
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            values.append(precision[hits > 0].mean())
    return float(100 * np.mean(values)) if values else float("nan")


def table(rows: Sequence[Row], sources: str) -> Any:
    """The rows as a rich table of at most 80 columns; ``sources`` is its title (:func:`caption`)."""
    from rich import box
    from rich.table import Table

    shown = Table(
        title=sources,
        title_justify="left",
        title_style="bold",
        padding=(0, 1, 0, 0),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    shown.add_column("", no_wrap=True)
    tious = list(dict.fromkeys(tiou for row in rows for tiou in row.get("per_tiou", {})))
    for tiou in tious or ["video-level mAP", "proposals a video"]:
        shown.add_column(tiou.removeprefix("0"), justify="right", no_wrap=True)
    if tious:
        shown.add_column("mean", justify="right", no_wrap=True)
    for row in rows:
        values = [*row["per_tiou"].values(), row["mean"]] if tious else [row["mean"], row["proposals_per_video"]]
        shown.add_row(row["name"], *("-" if value is None else f"{value:.1f}" for value in values))
    return shown


def caption(data: VideoSet, rows: Sequence[Row]) -> str:
    """The title of a table: the data set and the protocol of its numbers."""
    last = rows[-1]
    if last["kind"] == "localization":
        dropped = ", ambiguous dropped" if last.get("ambiguous") == "drop" else ""
        return f"{data.name}: mAP (%) at tIoU, protocol '{last['protocol']}'{dropped}, {last['videos']} test videos"
    if fault := nothing_to_measure(data.subset("test")):
        return f"{data.name}: no mAP: {fault}"
    return f"{data.name}: video-level mAP (%), {last['videos']} held-out videos; there is no temporal ground truth"
