"""The payload: the data of the HTML page, as one JSON value.

Frame scores take most of the space. In each video, only classes are kept that the page may localise: those with a
video-level probability of at least :data:`FLOOR`, or of the run's theta_cls if that is lower, in any source, the best
class of each source, and the classes of the ground truth. Their scores are 16-bit integers: 200 videos of 2000 snippets
with three such classes are 6.4 MB. An integer ``q`` stands for the float32 nearest to ``q / 65535``. The page localises
from these values, so the scores of its detections may differ in the last digits from those of the run.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wtal.about import VERSION
from wtal.data.span_check import known_end
from wtal.data.video import VideoSet
from wtal.errors import WtalError
from wtal.evaluation.inputs import without_ambiguous
from wtal.report.analysis import Analysis
from wtal.report.detection_errors import KINDS
from wtal.report.scores import VideoScores
from wtal.report.study import Study

FLOOR = 0.05
"""The lowest theta_cls that can be chosen in the page, unless the run's is lower."""

_LEVELS = 65535
_VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".ogv")


def payload(studies: Sequence[Study], limit: int = 200, videos: Path | None = None) -> dict[str, Any]:
    """All data of the page.

    Args:
        studies: one run, or several runs to compare. The timeline explorer is included only for a single run.
        limit: the largest number of videos in the explorer, evenly spaced in the data set's order.
        videos: folder of the source videos ``<id>.mp4`` (or .webm, .mkv, .mov, .avi), to which the page links.

    Raises:
        WtalError: ``limit`` is less than 1.
    """
    return {
        "wtal": VERSION,
        "kinds": KINDS,
        "runs": [_run(study) for study in studies],
        "explorer": _explorer(studies[0], limit, videos) if len(studies) == 1 and studies[0].scored else None,
    }


def _run(study: Study) -> dict[str, Any]:
    setup, config = study.run.setup, study.run.config
    return {
        "name": study.name,
        "dataset": study.data.name if study.data else setup.dataset,
        "recipe": setup.recipe,
        "seed": setup.seed,
        "protocol": config.evaluate.protocol,
        "ambiguous": study.ambiguous,
        "branch": config.localize.branch,
        "rows": study.rows,
        "curves": study.curves,
        "versions": study.versions,
        "trouble": study.trouble,
        "analyses": {source: _analysis(analysis) for source, analysis in study.analyses.items()},
    }


def _analysis(analysis: Analysis) -> dict[str, Any]:
    return {
        "classes": analysis.classes,
        "tiou": analysis.tiou,
        "ap": np.round(analysis.ap, 4).tolist(),
        "precision": _packed(analysis.precision),
        "instances": analysis.instances.tolist(),
        "alpha": analysis.alpha,
        "byRank": analysis.by_rank.tolist(),
        "gains": analysis.gains,
        "byLength": [dataclasses.asdict(item) for item in analysis.by_length],
        "byCount": [dataclasses.asdict(item) for item in analysis.by_count],
        "detections": analysis.detections,
    }


def _explorer(study: Study, limit: int, videos: Path | None) -> dict[str, Any]:
    assert study.data is not None
    if limit < 1:
        raise WtalError(f"{limit} videos: expected at least 1")
    floor = min(FLOOR, study.run.config.localize.theta_cls)
    chosen = np.unique(np.linspace(0, len(study.scored) - 1, min(limit, len(study.scored))).round().astype(int))
    return {
        "classes": study.data.classes,
        "floor": floor,
        "sources": study.scored[0].sources,
        "of": len(study.scored),
        "config": dataclasses.asdict(study.run.config.localize),
        "tiou": study.run.config.evaluate.tiou,
        "videos": [_video(study.scored[index], study.data, floor, videos, study.ambiguous) for index in chosen],
    }


def _video(item: VideoScores, data: VideoSet, floor: float, folder: Path | None, ambiguous: str) -> dict[str, Any]:
    video = without_ambiguous(item.video) if ambiguous == "drop" else item.video
    labels = [data.classes.index(label) for label in video.labels]
    kept = _kept_classes(item, labels, floor)
    truth = None
    if video.instances is not None:
        truth = [[instance.start, instance.end, data.classes.index(instance.label)] for instance in video.instances]
    return {
        "id": video.id,
        "length": len(next(iter(item.frames.values()))),
        "timebase": [video.timebase.fps, video.timebase.stride, video.timebase.window],
        "duration": video.duration,
        "end": known_end(video, len(next(iter(item.frames.values())))),
        "classes": kept,
        "labels": labels,
        "truth": truth,
        "ambiguous": video.ambiguous if ambiguous == "drop" else (),
        "frames": {name: _packed(frames[:, kept].T.numpy()) for name, frames in item.frames.items()},
        "level": {source: item.of(source)[1][kept].tolist() for source in item.sources},
        "file": _file(video.id, folder),
    }


def _kept_classes(item: VideoScores, labels: Sequence[int], floor: float) -> list[int]:
    """Indices of the classes that are localised in a video for any theta_cls >= ``floor``, and of its labels."""
    kept = set(labels)
    for source in item.sources:
        _, level = item.of(source)
        kept |= {int(level.argmax()), *torch.nonzero(level >= floor)[:, 0].tolist()}
    return sorted(kept)


def _packed(values: np.ndarray) -> str:
    """Encode values in [0, 1] as base64 of little-endian 16-bit integers, in C order."""
    return base64.b64encode(np.rint(values.astype(np.float64) * _LEVELS).astype("<u2").tobytes()).decode()


def _file(video_id: str, folder: Path | None) -> str | None:
    """The URL of a source video; None if the file does not exist."""
    if folder is None:
        return None
    for suffix in _VIDEO_SUFFIXES:
        path = folder / f"{video_id}{suffix}"
        if path.is_file():
            return path.resolve().as_uri()
    return None
