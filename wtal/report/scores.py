"""Frame scores of a run's branches on its test videos: what the report draws and the page localises from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wtal.branches import Branches
from wtal.config import LocalizeConfig, RunConfig
from wtal.data.predictions import Detection
from wtal.data.video import Video, VideoSet
from wtal.device import Device
from wtal.infer import frame_logits
from wtal.localize import detect, scale_scores, to_seconds
from wtal.models.blocks import video_logits

BRANCHES = ("cbp", "vlp")
_BATCH = 16  # videos localised at once


@dataclass(frozen=True)
class VideoScores:
    """Scores of one video.

    Attributes:
        video: whose they are.
        frames: by branch, float32 ``[T, C]`` in [0, 1], scaled per class over the video as localisation does.
        video_level: by branch, video-level probabilities, float32 ``[C]``.
    """

    video: Video
    frames: Mapping[str, Tensor]
    video_level: Mapping[str, Tensor]

    @property
    def sources(self) -> tuple[str, ...]:
        """The branches, and ``ensemble`` where there are both."""
        return (*self.frames, "ensemble") if len(self.frames) > 1 else tuple(self.frames)

    def of(self, source: str) -> tuple[Tensor, Tensor]:
        """Frame scores ``[T, C]`` and video-level probabilities ``[C]`` of a branch or of the ensemble, their mean."""
        names = BRANCHES if source == "ensemble" else (source,)
        frames = torch.stack([self.frames[name] for name in names]).mean(0)
        return frames, torch.stack([self.video_level[name] for name in names]).mean(0)


def score_videos(
    branches: Branches, data: VideoSet, videos: Sequence[Video], config: RunConfig, device: Device
) -> list[VideoScores]:
    """Scores of both branches for each video; of ``cbp`` alone where any video lacks CLIP features."""
    names = BRANCHES if all(video.clip is not None for video in videos) else BRANCHES[:1]
    frames: list[dict[str, Tensor]] = [{} for _ in videos]
    levels: list[dict[str, Tensor]] = [{} for _ in videos]
    for name in names:
        for index, logits in enumerate(frame_logits(branches, name, data, videos, device)):
            length = torch.tensor([len(logits)])
            frames[index][name] = scale_scores(torch.sigmoid(logits)[None], length)[0]
            pooled = video_logits(logits[None], length, config.loss.topk_divisor)
            levels[index][name] = torch.sigmoid(pooled)[0]
    return [VideoScores(*row) for row in zip(videos, frames, levels, strict=True)]


def detections(
    scored: Sequence[VideoScores], source: str, classes: Sequence[str], config: LocalizeConfig
) -> dict[str, list[Detection]]:
    """Detections in seconds by video id, from a branch's scores or the ensemble's; as :func:`wtal.infer.find`."""
    found: dict[str, list[Detection]] = {}
    for first in range(0, len(scored), _BATCH):
        part = scored[first : first + _BATCH]
        frames, levels = zip(*(item.of(source) for item in part), strict=True)
        lengths = torch.tensor([len(rows) for rows in frames])
        batch = detect(pad_sequence(list(frames), batch_first=True), torch.stack(levels), lengths, config)
        seconds = to_seconds(batch, [item.video.timebase for item in part], classes)
        found |= {item.video.id: listed for item, listed in zip(part, seconds, strict=True)}
    return found
