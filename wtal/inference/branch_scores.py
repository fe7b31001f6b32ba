"""Frame scores and video-level probabilities from a branch's logits, by the activation of its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from wtal.inference.branches import Branches
from wtal.inference.localize import scale_scores
from wtal.models.mil import video_logits
from wtal.settings.config import RunConfig


def is_softmax(branches: Branches, name: str, config: RunConfig) -> bool:
    """Whether a branch has one softmax over the classes. Otherwise each class has a sigmoid, as always in VLP."""
    return config.cbp.activation == "softmax" and not branches.reads_clip(name)


def branch_scores(
    branches: Branches, name: str, logits: Tensor, lengths: Tensor, config: RunConfig
) -> tuple[Tensor, Tensor]:
    """Frame scores (:func:`scaled_frames`) and video-level probabilities of one branch.

    Args:
        branches: the branches of the run.
        name: the branch.
        logits: frame logits ``[B, T, C]`` of the branch. They are overwritten, to save memory with long videos.
        lengths: ``[B]`` int64.
        config: the settings of the branch, the pooling and the loss.

    Returns:
        frame scores ``[B, T, C]``, scaled to [0, 1] per video and class; probabilities ``[B, C]``.
    """
    pooled = video_logits(logits, lengths, config.loss.topk_divisor)
    levels = torch.softmax(pooled, 1) if is_softmax(branches, name, config) else torch.sigmoid(pooled)
    return scaled_frames(branches, name, logits, lengths, config), levels


def scaled_frames(branches: Branches, name: str, logits: Tensor, lengths: Tensor, config: RunConfig) -> Tensor:
    """Frame scores ``[B, T, C]`` of one branch, scaled to [0, 1] per video and class; see :func:`branch_scores`.

    With a sigmoid, the frame score is the probability. With a softmax it is the logit, because the probability is near
    1 or 0 wherever one class leads, even in background (7 to 20 mAP lower on THUMOS14 features). Logits below 0 count
    as 0.
    """
    return scale_scores(logits.clamp_(min=0) if is_softmax(branches, name, config) else logits.sigmoid_(), lengths)


def mean_scores(
    branches: Branches, logits: dict[str, Tensor], lengths: Tensor, config: RunConfig
) -> tuple[Tensor, Tensor]:
    """The means of what :func:`branch_scores` gives for each branch of an ensemble, or for a branch alone.

    Args:
        branches: the branches of the run.
        logits: frame logits ``[B, T, C]`` by branch. The dictionary is emptied, because those of a long video are
            large.
        lengths: ``[B]`` int64.
        config: as for :func:`branch_scores`.
    """
    names = tuple(logits)
    levels = []
    together: Tensor | None = None
    for name in names:
        scores, level = branch_scores(branches, name, logits.pop(name), lengths, config)
        levels.append(level)
        together = scores if together is None else together.add_(scores)
        del scores
    assert together is not None
    return together.div_(len(names)), torch.stack(levels).mean(0)
