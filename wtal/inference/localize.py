"""From frame scores to detections: pick classes, group snippets into proposals, suppress, turn into seconds.

Everything up to :class:`Detections` stays on the device that the scores are on.
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
"""A branch fires on a snippet whose score, scaled by :func:`scale_scores`, is above this."""


@dataclass(frozen=True)
class Detections:
    """Detections of a batch of videos, sorted by video, class and falling score; N rows.

    Attributes:
        video: index into the batch, int64 ``[N]``.
        label: class index, int64 ``[N]``.
        segment: half open, int64 ``[N, 2]``, in parts of a snippet: ``upsample`` of them are one.
        score: ``[N]``.
        upsample: parts a snippet.
    """

    video: Tensor
    label: Tensor
    segment: Tensor
    score: Tensor
    upsample: int = 1


def scale_scores(scores: Tensor, lengths: Tensor) -> Tensor:
    """Scores brought to [0, 1] over each video's own snippets, per class; zero beyond its length.

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
    """Scores of ``parts`` equal parts of each snippet, linear in time between the middles of snippets.

    Before the middle of the first snippet and after the middle of the last snippet, the score is constant. Every
    operation is rounded by itself, so that the report's page can do the same to the bit.

    Args:
        scores: ``[B, T, C]``; values beyond a length are ignored.
        lengths: int64 ``[B]``.
        parts: at least 1.

    Returns:
        ``[B, parts * T, C]``; beyond a video's own parts it is undefined.
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
        offset = (part + 0.5) / parts - 0.5  # from the middle of the snippet, in snippets
        other = before if offset < 0 else after
        upsampled.append(scores + (other - scores) * scores.new_tensor(abs(offset)))
    return torch.stack(upsampled, 2).flatten(1, 2)


def detect(scores: Tensor, video_scores: Tensor, lengths: Tensor, config: LocalizeConfig) -> Detections:
    """Localise actions in a batch of videos (paper, supplement: inference).

    Classes whose video-level probability is above ``theta_cls`` are localised, and always the best class. Their frame
    scores, scaled to [0, 1] per video and class and brought to ``upsample`` parts a snippet, are thresholded at every
    ``theta_loc``; consecutive parts above it form a proposal. A proposal scores ``config.score`` of its parts times the
    video-level probability.

    Args:
        scores: frame scores ``[B, T, C]``, float32 or float64, any range.
        video_scores: video-level probabilities ``[B, C]``.
        lengths: int64 ``[B]``; values beyond are ignored.
        config: thresholds, proposal score and suppression.
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
    if parts > 1:  # scaled first: the scale is that of the snippets, as the report draws them
        scores = upsample_scores(scale_scores(scores, lengths), lengths, parts)
    segments, owner, score = group_proposals(
        scores, thresholds, lengths * parts, keep, score=config.score, unique=True, rescale=parts == 1
    )
    segments, owner, score = _with_single_snippets(segments, owner, score, keep, lengths, parts)
    # The outer-inner contrast may be negative: such a proposal is darker than its surroundings and scores nothing.
    score = score.clamp(min=0.0) * video_scores.to(score.dtype)[owner[:, 0], owner[:, 1]]
    group = owner[:, 0] * classes + owner[:, 1]  # ascending: proposals come ordered by video, then class
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
    """Proposals, and one for each class looked for in a video of one snippet, which nothing in it can stand out from.

    Its score is that of a highest snippet, 1.
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
    """Detections of each video of the batch in seconds, by falling score; none begins before second 0.

    Args:
        detections: what :func:`detect` returned.
        timebases: one a video of the batch.
        classes: class names in index order.
        ends: where each video ends, None where it is unknown: no detection ends later, and one that would begin there
            is left out.
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
