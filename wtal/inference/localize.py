"""From frame scores to detections: selects classes, groups snippets into proposals, suppresses, converts to seconds.

:class:`Detections` are on the device of the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wtal.data.predictions import Detection
from wtal.data.timebase import Timebase
from wtal.ops.nms import soft_nms
from wtal.ops.proposals import group_proposals
from wtal.settings.config import LocalizeConfig

FIRES = 0.5
"""A branch fires on a snippet if its score, scaled by :func:`scale_scores`, is above this value."""


@dataclass(frozen=True)
class Detections:
    """Detections of a batch of videos, sorted by video, class and falling score; N rows.

    Attributes:
        video: the index of the video in the batch, int64 ``[N]``.
        label: the class index, int64 ``[N]``.
        segment: half-open intervals, int64 ``[N, 2]``, in units of 1 / ``upsample`` snippet.
        score: ``[N]``.
        upsample: the number of parts of a snippet.
    """

    video: Tensor
    label: Tensor
    segment: Tensor
    score: Tensor
    upsample: int = 1


def scale_scores(scores: Tensor, lengths: Tensor) -> Tensor:
    """Scores scaled to [0, 1] per video and class; zero after the end of a video.

    Args:
        scores: ``[B, T, C]``.
        lengths: int64 ``[B]``.

    Returns:
        ``[B, T, C]``. A class that is constant over a video becomes zero.
    """
    inside = (torch.arange(scores.shape[1], device=scores.device) < lengths[:, None])[..., None]  # [B, T, 1]
    low = scores.masked_fill(~inside, torch.inf).amin(1, keepdim=True)
    high = scores.masked_fill(~inside, -torch.inf).amax(1, keepdim=True)
    scaled = scores - low
    return scaled.div_((high - low).clamp(min=torch.finfo(scores.dtype).tiny)).masked_fill_(~inside, 0.0)


def upsample_scores(scores: Tensor, lengths: Tensor, parts: int) -> Tensor:
    """Scores of ``parts`` equal parts of each snippet, by linear interpolation between the middles of snippets.

    Before the middle of the first snippet and after the middle of the last snippet, the score is constant. No two
    operations are fused, so that the report's page can compute the same bits.

    Args:
        scores: ``[B, T, C]``; values after the end of a video are ignored.
        lengths: int64 ``[B]``.
        parts: at least 1.

    Returns:
        ``[B, parts * T, C]``; undefined after the end of a video.
    """
    if parts == 1 or not scores.shape[1]:
        return scores
    last = (lengths - 1).clamp(min=0)[:, None]  # [B, 1]
    place = torch.arange(scores.shape[1], device=scores.device)[None]  # [1, T]

    def moved(by: int) -> Tensor:
        index = torch.minimum((place + by).clamp(min=0), last)
        return scores.gather(1, index[..., None].expand_as(scores))

    before, after = moved(-1), moved(1)
    upsampled = []
    for part in range(parts):
        offset = (part + 0.5) / parts - 0.5  # distance from the middle of the snippet, in snippets
        other = before if offset < 0 else after
        upsampled.append(scores + (other - scores) * scores.new_tensor(abs(offset)))
    return torch.stack(upsampled, 2).flatten(1, 2)


def detect(scores: Tensor, video_scores: Tensor, lengths: Tensor, config: LocalizeConfig) -> Detections:
    """Localise actions in a batch of videos (paper, supplement: inference).

    The best class of a video is localised, and every class whose video-level probability is above ``theta_cls``. The
    frame scores are scaled to [0, 1] per video and class, and interpolated to ``upsample`` parts per snippet. Adjacent
    parts above a threshold in ``theta_loc`` form a proposal. Its score is ``config.score`` of its parts, times the
    video-level probability.

    Args:
        scores: frame scores ``[B, T, C]``, float32 or float64, of any range.
        video_scores: video-level probabilities ``[B, C]``.
        lengths: int64 ``[B]``; values after the end of a video are ignored.
        config: the thresholds, the score of proposals, and the suppression.
    """
    batch, _, classes = scores.shape
    if video_scores.shape != (batch, classes):
        raise ValueError(
            f"video_scores must be [{batch}, {classes}] to go with scores {list(scores.shape)}, "
            f"got {list(video_scores.shape)}"
        )
    keep = video_scores > config.theta_cls
    keep.scatter_(1, video_scores.argmax(1, keepdim=True), True)
    keep &= (lengths > 0)[:, None]
    thresholds = torch.tensor(config.theta_loc, dtype=scores.dtype, device=scores.device)
    parts = config.upsample
    if parts > 1:  # the report scales the scores of snippets, before interpolation
        scores = upsample_scores(scale_scores(scores, lengths), lengths, parts)
    segments, owner, score = group_proposals(
        scores, thresholds, lengths * parts, keep, score=config.score, unique=True, rescale=parts == 1
    )
    segments, owner, score = _with_single_snippets(segments, owner, score, keep, lengths, parts)
    # The outer-inner contrast is negative if a proposal has lower scores than its surroundings. It counts as 0.
    score = score.clamp(min=0.0) * video_scores.to(score.dtype)[owner[:, 0], owner[:, 1]]
    group = owner[:, 0] * classes + owner[:, 1]  # ascending, because proposals are sorted by video and class
    offsets = torch.searchsorted(group, torch.arange(batch * classes + 1, device=group.device))
    kept, score, _ = soft_nms(
        segments.to(score.dtype),
        score,
        offsets,
        sigma=config.sigma,
        iou_threshold=config.iou_threshold,
        min_score=config.min_score,
        method=config.nms,
        max_per_group=config.max_detections,
    )
    rows = owner[kept]
    return Detections(rows[:, 0], rows[:, 1], segments[kept], score, parts)


def _with_single_snippets(
    segments: Tensor, owner: Tensor, score: Tensor, keep: Tensor, lengths: Tensor, parts: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Add a proposal for each selected class of a video of one snippet.

    Such a video has no other proposal, because its only scaled score is 0. The score of the proposal is 1, that of a
    highest snippet.
    """
    alone = (keep & (lengths == 1)[:, None]).nonzero()
    if not len(alone):
        return segments, owner, score
    owner = torch.cat([owner, torch.nn.functional.pad(alone, (0, 1))])
    segments = torch.cat([segments, segments.new_tensor([[0, parts]]).expand(len(alone), 2)])
    score = torch.cat([score, score.new_ones(len(alone))])
    order = (owner[:, 0] * keep.shape[1] + owner[:, 1]).argsort(stable=True)
    return segments[order], owner[order], score[order]


def to_seconds(
    detections: Detections,
    timebases: Sequence[Timebase],
    classes: Sequence[str],
    ends: Sequence[float | None] | None = None,
) -> list[list[Detection]]:
    """Convert detections to seconds, for each video of the batch, sorted by falling score. None begins before second 0.

    Args:
        detections: the result of :func:`detect`.
        timebases: the time base of each video.
        classes: the class names in index order.
        ends: the end of each video in seconds, None if it is unknown. Detections are cut there, and those that would
            begin later are left out.
    """
    listed_by_video: list[list[Detection]] = [[] for _ in timebases]
    columns = zip(
        detections.video.tolist(),
        detections.label.tolist(),
        detections.segment.tolist(),
        detections.score.tolist(),
        strict=True,
    )
    for video, label, (start, end), score in columns:
        timebase, last = timebases[video], None if ends is None else ends[video]
        first, after = max(0.0, timebase.edge(start / detections.upsample)), timebase.edge(end / detections.upsample)
        if last is not None:
            after = min(after, last)
        if first < after:
            listed_by_video[video].append(Detection(first, after, classes[label], score))
    for listed in listed_by_video:
        listed.sort(key=lambda detection: -detection.score)
    return listed_by_video
