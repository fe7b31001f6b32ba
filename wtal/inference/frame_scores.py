"""Applies branches to whole videos: frame logits, detections, and video-level scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wtal.data.batches import ALL, in_parts, whole_videos
from wtal.data.features import feature_lengths
from wtal.data.predictions import Detection
from wtal.data.span_check import known_end
from wtal.data.video import Video, VideoSet
from wtal.inference.branch_scores import mean_scores
from wtal.inference.branches import Branches, members
from wtal.inference.localize import detect, scale_scores, to_seconds
from wtal.inference.long_videos import SNIPPETS, Parts, check_length, logits_in_parts, part_size
from wtal.models.vlp import VLP
from wtal.platform.device import Device
from wtal.platform.distributed import SINGLE_PROCESS, Processes
from wtal.settings.config import RunConfig

_BATCH = 16  # videos in a batch; they are sorted by length, to have little padding


@dataclass(frozen=True)
class VideoResult:
    """Inference results of one video."""

    video: Video
    detections: list[Detection]
    video_scores: Tensor
    """Video-level probabilities ``[C]`` on the CPU."""
    frame_scores: Tensor
    """Frame scores ``[T, C]`` on the CPU, scaled to [0, 1] per class; localisation applies its thresholds to them."""


def frame_logits(
    branches: Branches,
    name: str,
    data: VideoSet,
    videos: Sequence[Video],
    device: Device,
    processes: Processes = SINGLE_PROCESS,
) -> list[Tensor]:
    """Logits ``[T, C]`` of one branch for each video, float32 on the CPU, in the order of ``videos``.

    Several processes share the work, and each gets the logits of all videos.
    """
    by_index: dict[int, Tensor] = {}
    for scored in scored_batches(branches, (name,), data, videos, device, processes.part):
        logits = scored.logits[name].cpu()
        for row, (index, length) in enumerate(zip(scored.index, scored.lengths.tolist(), strict=True)):
            by_index[index] = logits[row, :length].clone()
    every = {index: logits for share in processes.gather(by_index) for index, logits in share.items()}
    return [every[index] for index in range(len(videos))]


def find(
    branches: Branches,
    branch: str,
    data: VideoSet,
    videos: Sequence[Video],
    config: RunConfig,
    device: Device,
    part: slice = ALL,
) -> Iterator[VideoResult]:
    """Detections and video-level probabilities of every video. Long videos come first.

    Args:
        branches: the branches, in evaluation mode.
        branch: a branch, or an ensemble (:func:`members`). An ensemble takes the mean of its branches' frame scores,
            which are scaled to [0, 1] per video and class, and the mean of their video-level probabilities.
        data: the data set, which gives the class names.
        videos: videos of the data set.
        config: the settings of pooling and localisation.
        device: the device to compute on.
        part: the batches to compute. The results of a video do not depend on it.
    """
    branches.check(branch)
    for scored in scored_batches(branches, members(branch), data, videos, device, part):
        lengths = scored.lengths
        with torch.inference_mode():
            together, pooled = mean_scores(branches, scored.logits, lengths, config)
            detections = detect(together, pooled, lengths, config.localize)
            scaled = scale_scores(together, lengths).cpu()
            del together
        shown = [videos[index] for index in scored.index]
        ends = [known_end(video, n) for video, n in zip(shown, lengths.tolist(), strict=True)]
        seconds = to_seconds(detections, [video.timebase for video in shown], data.classes, ends)
        for row, video in enumerate(shown):
            yield VideoResult(video, seconds[row], pooled[row].cpu(), scaled[row, : int(lengths[row])])


@dataclass(frozen=True)
class ScoredBatch:
    """Frame logits by branch, float32 ``[B, T, C]``, of the videos at ``index``; ``lengths`` is ``[B]``."""

    index: list[int]
    lengths: Tensor
    logits: dict[str, Tensor]


def scored_batches(
    branches: Branches,
    names: Sequence[str],
    data: VideoSet,
    videos: Sequence[Video],
    device: Device,
    part: slice = ALL,
) -> Iterator[ScoredBatch]:
    """The frame logits of every video of ``part``, in bounded memory: long videos are computed in parts.

    Raises:
        WtalError: as :func:`check_lengths`.
    """
    if not videos:
        return
    with ExitStack() as held:
        for name in names:
            branch = branches.reading(name)
            if isinstance(branch, VLP):
                held.enter_context(branch.hold_text())
        yield from _each(branches, names, data, videos, device, part)


def _each(
    branches: Branches, names: Sequence[str], data: VideoSet, videos: Sequence[Video], device: Device, part: slice
) -> Iterator[ScoredBatch]:
    check_lengths(branches, names, videos)
    lengths = feature_lengths(videos)
    sizes = [part_size(branches, name) for name in names]
    longest_first = np.argsort(-lengths, kind="stable").tolist()
    alone = [index for index in longest_first if any(0 < size < lengths[index] for size in sizes)]
    clip = [branches.reads_clip(name) for name in names]
    kinds = {"with_i3d": not all(clip), "with_clip": any(clip)}
    for index in alone[part]:
        length = int(lengths[index])
        logits = {
            name: logits_in_parts(branches, name, length, _parts(data, videos[index], length, reads_clip), device)
            for name, reads_clip in zip(names, clip, strict=True)
        }
        yield ScoredBatch([index], torch.tensor([length], device=device.name), logits)
    rest = sorted(longest_first[len(alone) :])
    shown = [videos[index] for index in rest]
    for batch in whole_videos(data, shown, _BATCH, snippets=SNIPPETS, part=part, **kinds):
        here = batch.to(device.name)
        with torch.inference_mode(), device.autocast():
            logits = {name: branches.logits(name, here).float() for name in names}
        yield ScoredBatch([rest[place] for place in batch.index.tolist()], here.lengths, logits)


def _parts(data: VideoSet, video: Video, length: int, clip: bool) -> Parts:
    """Reads the parts of a video from its files, either CLIP or I3D features."""
    return lambda size, overlap: in_parts(data, video, length, size, overlap, with_i3d=not clip, with_clip=clip)


def check_lengths(branches: Branches, names: Sequence[str], videos: Sequence[Video]) -> None:
    """Check that no video is too long for a branch.

    Raises:
        WtalError: a video is too long for a branch without an attention window.
    """
    lengths = feature_lengths(videos)
    if len(lengths):
        longest = int(lengths.argmax())
        for name in names:
            check_length(branches, name, f"video {videos[longest].id}", int(lengths[longest]))
