"""Branches applied to whole videos: frame logits, detections, video-level scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wtal.branches import Branches
from wtal.config import RunConfig
from wtal.data.batches import in_parts, whole_videos
from wtal.data.features import feature_lengths
from wtal.data.predictions import Detection
from wtal.data.video import Video, VideoSet
from wtal.device import Device
from wtal.errors import WtalError
from wtal.localize import detect, scale_scores, to_seconds
from wtal.models.blocks import video_logits
from wtal.models.vlp import VLP

_BATCH = 16  # whole videos at once; sorted by length, so that little of it is padding
_SNIPPETS = 16_384  # ... and at most this many snippets; a longer video goes through a windowed branch in parts
LONGEST = 65_536
"""The longest video for a branch whose attention reaches the whole video."""


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
    for scored in _scored(branches, (name,), data, videos, device):
        logits = scored.logits[name].cpu()
        for row, (index, length) in enumerate(zip(scored.index, scored.lengths.tolist(), strict=True)):
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
    for scored in _scored(branches, names, data, videos, device):
        lengths = scored.lengths
        with torch.inference_mode():
            scores = [scale_scores(torch.sigmoid(scored.logits[name]), lengths) for name in names]
            pooled = torch.stack(
                [torch.sigmoid(video_logits(scored.logits[name], lengths, config.loss.topk_divisor)) for name in names]
            ).mean(0)
            together = torch.stack(scores).mean(0)
            detections = detect(together, pooled, lengths, config.localize)
            scaled = scale_scores(together, lengths).cpu()
        shown = [videos[index] for index in scored.index]
        seconds = to_seconds(detections, [video.timebase for video in shown], data.classes)
        for row, video in enumerate(shown):
            yield Found(video, seconds[row], pooled[row].cpu(), scaled[row, : int(lengths[row])])


@dataclass(frozen=True)
class _Scored:
    """Frame logits float32 ``[B, T, C]`` by branch, of the videos at ``index``, with ``lengths`` ``[B]``."""

    index: list[int]
    lengths: Tensor
    logits: dict[str, Tensor]


def _scored(
    branches: Branches, names: Sequence[str], data: VideoSet, videos: Sequence[Video], device: Device
) -> Iterator[_Scored]:
    """Every video once: whole where it fits, in parts where it does not, memory bounded either way."""
    if not videos:
        return
    with ExitStack() as held:
        for name in names:
            branch = branches.reading(name)
            if isinstance(branch, VLP):
                held.enter_context(branch.hold_text())
        yield from _scored_each(branches, names, data, videos, device)


def _scored_each(
    branches: Branches, names: Sequence[str], data: VideoSet, videos: Sequence[Video], device: Device
) -> Iterator[_Scored]:
    lengths = feature_lengths(videos)
    part = {name: _part(branches, name, videos, lengths) for name in names}
    alone = {index for index, length in enumerate(lengths) if any(0 < size < length for size in part.values())}
    clip = [branches.reads_clip(name) for name in names]
    kinds = {"with_i3d": not all(clip), "with_clip": any(clip)}
    for index in alone:
        length = int(lengths[index])
        logits = {name: _in_parts(branches, name, data, videos[index], length, part[name], device) for name in names}
        yield _Scored([index], torch.tensor([length], device=device.name), logits)
    rest = [index for index in range(len(videos)) if index not in alone]
    for batch in whole_videos(data, [videos[index] for index in rest], _BATCH, snippets=_SNIPPETS, **kinds):
        here = batch.to(device.name)
        with torch.inference_mode(), device.autocast():
            logits = {name: branches.logits(name, here).float() for name in names}
        yield _Scored([rest[place] for place in batch.index.tolist()], here.lengths, logits)


def _part(branches: Branches, name: str, videos: Sequence[Video], lengths: np.ndarray) -> int:
    """How many snippets of a long video a branch takes at once; 0: the whole of any that is allowed.

    Raises:
        WtalError: a video is too long for a branch without an attention window.
    """
    branch = branches.reading(name)
    if branch.reach is not None:
        return -(-_SNIPPETS // branch.stride) * branch.stride
    if len(lengths) and lengths.max() > LONGEST:
        longest = videos[int(lengths.argmax())]
        section = "vlp" if branches.reads_clip(name) else "cbp"
        raise WtalError(
            f"video {longest.id}: {lengths.max()} snippets, but a branch whose attention reaches the whole video takes "
            f"at most {LONGEST}; train with --{section}.window N (any length goes then), or cut the video into parts"
        )
    return 0


def _in_parts(
    branches: Branches, name: str, data: VideoSet, video: Video, length: int, size: int, device: Device
) -> Tensor:
    """Logits ``[1, T, C]`` of one long video: each part with as much around it as its logits depend on."""
    branch = branches.reading(name)
    size = size or length
    overlap = -(-(branch.reach or 0) // branch.stride) * branch.stride  # so that each part is pooled as the whole is
    clip = branches.reads_clip(name)
    parts = []
    for batch, first, last in in_parts(data, video, length, size, overlap, not clip, clip):
        start = int(batch.start)
        with torch.inference_mode(), device.autocast():
            logits = branches.logits(name, batch.to(device.name)).float()
        parts.append(logits[:, first - start : last - start].clone())
    return torch.cat(parts, 1)
