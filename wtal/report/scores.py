"""Frame scores of a run's branches on its test videos, for the figures and for localisation in the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wtal.data.predictions import Detection
from wtal.data.span_check import known_end
from wtal.data.video import Video, VideoSet
from wtal.inference.branch_scores import branch_scores
from wtal.inference.branches import Branches
from wtal.inference.frame_scores import scored_batches
from wtal.inference.localize import detect, to_seconds
from wtal.platform.device import Device
from wtal.settings.config import LocalizeConfig, RunConfig

BRANCHES = ("cbp", "vlp")


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
    """Scores of each branch for each video; only of ``cbp`` if there is no ``vlp`` or a video lacks CLIP features.

    They are computed in the batches of an evaluation, because the others in a batch can change a score's last bit.

    Raises:
        WtalError: a video is too long for a branch without an attention window.
    """
    names = BRANCHES if branches.has_vlp and all(video.clip is not None for video in videos) else BRANCHES[:1]
    scored: list[VideoScores | None] = [None] * len(videos)
    for batch in scored_batches(branches, names, data, videos, device):
        scaled, levels = {}, {}
        with torch.inference_mode():
            for name in names:
                frames, level = branch_scores(branches, name, batch.logits.pop(name), batch.lengths, config)
                scaled[name], levels[name] = frames.cpu(), level.cpu()
                del frames
        for row, (index, length) in enumerate(zip(batch.index, batch.lengths.tolist(), strict=True)):
            own = {name: scores[row, :length].clone() for name, scores in scaled.items()}
            scored[index] = VideoScores(videos[index], own, {name: level[row] for name, level in levels.items()})
    return [item for item in scored if item is not None]


def detections(
    scored: Sequence[VideoScores], source: str, classes: Sequence[str], config: LocalizeConfig
) -> dict[str, list[Detection]]:
    """Detections in seconds by video id, from the scores of a branch or the ensemble."""
    by_video: dict[str, list[Detection]] = {}
    for item in scored:
        frames, level = item.of(source)
        lengths = torch.tensor([len(frames)])
        batch = detect(frames[None], level[None], lengths, config)
        end = known_end(item.video, len(frames))
        by_video[item.video.id] = to_seconds(batch, [item.video.timebase], classes, [end])[0]
    return by_video
