"""Frame scores of a run's branches on its test videos, for the figures and for localisation in the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wtal.data.batches import whole_videos
from wtal.data.predictions import Detection
from wtal.data.span_check import known_end
from wtal.data.video import Video, VideoSet
from wtal.inference.branch_scores import branch_scores
from wtal.inference.branches import Branches
from wtal.inference.localize import detect, to_seconds
from wtal.platform.device import Device
from wtal.settings.config import LocalizeConfig, RunConfig

BRANCHES = ("cbp", "vlp")
_BATCH = 16  # equal to wtal.inference.frame_scores: the position in a batch can change the last bit of a score


@dataclass(frozen=True)
class VideoScores:
    """Scores of one video.

    Attributes:
        video: the video that was scored.
        frames: by branch, float32 ``[T, C]`` in [0, 1], scaled per class over the video as localisation does.
        video_level: by branch, video-level probabilities, float32 ``[C]``.
    """

    video: Video
    frames: Mapping[str, Tensor]
    video_level: Mapping[str, Tensor]

    @property
    def sources(self) -> tuple[str, ...]:
        """The branches, and ``ensemble`` if there are two branches."""
        return (*self.frames, "ensemble") if len(self.frames) > 1 else tuple(self.frames)

    def of(self, source: str) -> tuple[Tensor, Tensor]:
        """Frame scores ``[T, C]`` and video-level probabilities ``[C]`` of a branch; for ``ensemble`` their means."""
        names = BRANCHES if source == "ensemble" else (source,)
        frames = torch.stack([self.frames[name] for name in names]).mean(0)
        return frames, torch.stack([self.video_level[name] for name in names]).mean(0)


def score_videos(
    branches: Branches, data: VideoSet, videos: Sequence[Video], config: RunConfig, device: Device
) -> list[VideoScores]:
    """Scores of each branch for each video; only of ``cbp`` if there is no ``vlp`` or a video lacks CLIP features."""
    names = BRANCHES if branches.has_vlp and all(video.clip is not None for video in videos) else BRANCHES[:1]
    scored: list[VideoScores | None] = [None] * len(videos)
    for batch in whole_videos(data, videos, _BATCH, with_clip="vlp" in names):
        here = batch.to(device.name)
        scaled, levels = {}, {}
        with torch.inference_mode():
            for name in names:
                with device.autocast():
                    logits = branches.logits(name, here).float()
                frames, level = branch_scores(branches, name, logits, here.lengths, config)
                scaled[name], levels[name] = frames.cpu(), level.cpu()
        for row, (index, length) in enumerate(zip(batch.index.tolist(), batch.lengths.tolist(), strict=True)):
            own = {name: scores[row, :length].clone() for name, scores in scaled.items()}
            scored[index] = VideoScores(videos[index], own, {name: level[row] for name, level in levels.items()})
    return [item for item in scored if item is not None]


def detections(
    scored: Sequence[VideoScores], source: str, classes: Sequence[str], config: LocalizeConfig
) -> dict[str, list[Detection]]:
    """Detections in seconds by video id, from the scores of a branch or the ensemble."""
    by_video: dict[str, list[Detection]] = {}
    for first in range(0, len(scored), _BATCH):
        part = scored[first : first + _BATCH]
        frames, levels = zip(*(item.of(source) for item in part), strict=True)
        lengths = torch.tensor([len(rows) for rows in frames])
        batch = detect(pad_sequence(list(frames), batch_first=True), torch.stack(levels), lengths, config)
        ends = [known_end(item.video, n) for item, n in zip(part, lengths.tolist(), strict=True)]
        seconds = to_seconds(batch, [item.video.timebase for item in part], classes, ends)
        by_video |= {item.video.id: listed for item, listed in zip(part, seconds, strict=True)}
    return by_video
