"""One run: a model and a seed, trained and measured on the test videos or in folds of the training videos."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from wtal.data.folds import parts
from wtal.data.predictions import Detection
from wtal.data.video import Video
from wtal.errors import WtalError
from wtal.evaluation.average_precision import evaluate
from wtal.evaluation.snippet_errors import error_rates
from wtal.inference.frame_scores import VideoResult

from .data import Data
from .loop import train
from .models import MODELS, Baseline, Scored
from .rules import unit


@dataclass(frozen=True)
class Job:
    """What to train and where to measure it.

    Attributes:
        data: path of the ``dataset.toml``.
        segments: the training videos' temporal annotation, where it is not where it is looked for.
        model: a key of :data:`benchmarks.real.models.MODELS`.
        seed: of everything random.
        folds: parts of the training videos; 0 for the test videos.
        networks: how many are trained, each with a seed of its own; the mean of their scores is localised.
    """

    data: Path
    segments: Path | None
    model: str
    seed: int
    folds: int
    networks: int = 1

    @property
    def name(self) -> str:
        """What is trained, for the table."""
        return self.model if self.networks == 1 else f"{self.model}, {self.networks} networks"

    @property
    def part(self) -> str:
        """Where it is measured, in words."""
        return f"{self.folds} folds" if self.folds else "test"

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the result depends on beside data, seed and number of networks, which the name has."""
        kind = MODELS[self.model]
        settings = {**kind.constants(), "training": asdict(kind.training_settings), "rule": asdict(kind.rule)}
        return json.loads(json.dumps(settings))  # as they come back from a file

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}, {self.part}"


def execute(job: Job) -> dict[str, Any]:
    """Train and measure on one thread; in folds, detections of all held-out parts are evaluated together."""
    torch.set_num_threads(1)
    data, kind = _read(job.data, job.folds > 0, job.segments), MODELS[job.model]
    training = data.videos.subset("train")
    began = time.process_time()
    scored: dict[Video, Scored] = {}
    if job.folds:
        part = parts((video.id for video in training), job.folds)
        for number in sorted({*part.values()}):
            rest = [video for video in training if part[video.id] != number]
            scored |= _fit(data, kind, job, rest, [video for video in training if part[video.id] == number])
    else:
        scored = _fit(data, kind, job, training, data.videos.subset("test"))
    detections = {video: kind.rule(found, video.timebase, data.videos.classes) for video, found in scored.items()}
    seconds = time.process_time() - began
    return {**measure(data, scored, detections), "cpu_seconds": round(seconds, 1)}


def measure(data: Data, scored: dict[Video, Scored], detections: dict[Video, list[Detection]]) -> dict[str, Any]:
    """mAP, and where the scaled frame scores fire, of the videos that were scored."""
    if any(video.instances is None for video in scored):
        raise WtalError(f"data set {data.videos.name}: without temporal annotation there is nothing to measure")
    videos = replace(data.videos, videos=tuple(replace(video, subset="test") for video in scored))
    result = evaluate({video.id: found for video, found in detections.items()}, videos)
    frames = [VideoResult(video, [], found.video, unit(found.frames)) for video, found in scored.items()]
    rates = error_rates(videos, frames)
    return {
        "mean": round(result.mean, 4),
        "per_tiou": {f"{tiou:g}": round(value, 4) for tiou, value in result.per_tiou.items()},
        "snippets": {name: None if rate is None else round(rate, 4) for name, rate in rates.items()},
        "videos": result.videos,
    }


def _fit(
    data: Data, kind: type[Baseline], job: Job, training: Sequence[Video], held_out: Sequence[Video]
) -> dict[Video, Scored]:
    features, labels = data.features_of(kind, training, training), data.labels(training)
    seeds = [job.seed + 1000 * number for number in range(job.networks)]
    models = [train(kind, features, labels, seed) for seed in seeds]
    with torch.inference_mode():
        rows = data.features_of(kind, training, held_out)
        scored = [[model.score(own) for model in models] for own in rows]
        return {video: _mean(own) for video, own in zip(held_out, scored, strict=True)}


def _mean(scored: Sequence[Scored]) -> Scored:
    """The mean of what several networks say of one video."""
    if len(scored) == 1:
        return scored[0]
    action = [one.actionness for one in scored if one.actionness is not None]
    return Scored(
        torch.stack([one.frames for one in scored]).mean(0),
        torch.stack([one.video for one in scored]).mean(0),
        torch.stack(action).mean(0) if action else None,
    )


@cache
def _read(path: Path, folds: bool, segments: Path | None) -> Data:
    return Data.read(path, folds, segments)
