"""Branches applied to whole videos: frame logits, detections, video-level scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wtal.branches import Branches
from wtal.config import RunConfig
from wtal.data.batches import Batch, whole_videos
from wtal.data.predictions import Detection
from wtal.data.video import Video, VideoSet
from wtal.device import Device
from wtal.localize import detect, scale_scores, to_seconds
from wtal.models.blocks import video_logits

_BATCH = 16  # whole videos at once; sorted by length, so that little of it is padding


@dataclass(frozen=True)
class Found:
    """What inference says of one video."""

    video: Video
    detections: list[Detection]
    video_scores: Tensor
    """Video-level probabilities ``[C]`` on the CPU."""
    frame_scores: Tensor
    """``[T, C]`` on the CPU, scaled to [0, 1] per class: what the thresholds of localisation are held against."""


def members(branch: str) -> tuple[str, ...]:
    """The branches whose scores ``branch`` combines: ``ensemble`` is ``cbp+vlp``, and any ``a+b`` is another."""
    return tuple(("cbp+vlp" if branch == "ensemble" else branch).split("+"))


def frame_logits(
    branches: Branches, name: str, data: VideoSet, videos: Sequence[Video], device: Device
) -> list[Tensor]:
    """Logits ``[T, C]`` of one branch for each video, float32 on the CPU, in the order given."""
    found: list[Tensor] = [torch.empty(0)] * len(videos)
    for batch in _batches(branches, data, videos, (name,)):
        with torch.inference_mode(), device.autocast():
            logits = branches.logits(name, batch.to(device.name)).float().cpu()
        for row, (index, length) in enumerate(zip(batch.index.tolist(), batch.lengths.tolist(), strict=True)):
            found[index] = logits[row, :length].clone()
    return found


def find(
    branches: Branches,
    branch: str,
    data: VideoSet,
    videos: Sequence[Video],
    config: RunConfig,
    device: Device,
) -> Iterator[Found]:
    """Detections and video-level probabilities of every video, one batch after another.

    Args:
        branches: in eval mode.
        branch: a branch, or an ensemble of several (:func:`members`), which is the mean of both branches' frame
            probabilities, each scaled to [0, 1] per video and class, and of their video-level probabilities.
        data: for class names.
        videos: which of its videos.
        config: pooling and localisation settings.
        device: where to run.
    """
    names = members(branch)
    for batch in _batches(branches, data, videos, names):
        here = batch.to(device.name)
        with torch.inference_mode():
            scores, video_scores = [], []
            for name in names:
                with device.autocast():
                    logits = branches.logits(name, here).float()
                scores.append(scale_scores(torch.sigmoid(logits), here.lengths))
                video_scores.append(torch.sigmoid(video_logits(logits, here.lengths, config.loss.topk_divisor)))
            pooled = torch.stack(video_scores).mean(0)
            together = torch.stack(scores).mean(0)
            detections = detect(together, pooled, here.lengths, config.localize)
            scaled = scale_scores(together, here.lengths).cpu()
        shown = [videos[index] for index in batch.index.tolist()]
        seconds = to_seconds(detections, [video.timebase for video in shown], data.classes)
        for row, video in enumerate(shown):
            yield Found(video, seconds[row], pooled[row].cpu(), scaled[row, : int(batch.lengths[row])])


def _batches(branches: Branches, data: VideoSet, videos: Sequence[Video], names: Sequence[str]) -> Iterator[Batch]:
    clip = [branches.reads_clip(name) for name in names]
    return whole_videos(data, videos, _BATCH, with_i3d=not all(clip), with_clip=any(clip))
