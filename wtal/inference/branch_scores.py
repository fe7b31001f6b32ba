"""Frame scores and video-level probabilities from a branch's logits, by the loss that trains the branch."""

from __future__ import annotations

import torch
from torch import Tensor

from wtal.inference.branches import Branches
from wtal.inference.localize import scale_scores
from wtal.models.mil import video_logits
from wtal.settings.config import RunConfig


def is_softmax(branches: Branches, name: str, config: RunConfig) -> bool:
    """Whether a branch's classes share one softmax; if not, each is a sigmoid of its own, as VLP's always are."""
    return config.cbp.activation == "softmax" and not branches.reads_clip(name)


def branch_scores(
    branches: Branches, name: str, logits: Tensor, lengths: Tensor, config: RunConfig
) -> tuple[Tensor, Tensor]:
    """Frame scores and video-level probabilities of one branch.

    Under a softmax over classes a snippet's logit, and not its probability, is what grows along an action: the
    probability is near 0 or 1 wherever one class leads, action or not (7 to 20 mAP lower on THUMOS14 features). Below
    0 there is less of the class than of none.

    Args:
        branches: the branches of the run.
        name: the branch.
        logits: frame logits ``[B, T, C]`` of the branch; overwritten, because those of a long video are large.
        lengths: ``[B]`` int64.
        config: settings of the branch, the pooling and the loss.

    Returns:
        frame scores ``[B, T, C]``, scaled to [0, 1] per video and class; probabilities ``[B, C]``.
    """
    softmax = is_softmax(branches, name, config)
    pooled = video_logits(logits, lengths, config.loss.topk_divisor)
    frames = scale_scores(logits.clamp_(min=0) if softmax else logits.sigmoid_(), lengths)
    return frames, torch.softmax(pooled, 1) if softmax else torch.sigmoid(pooled)
