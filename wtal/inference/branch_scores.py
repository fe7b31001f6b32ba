"""What a branch's logits say: frame scores and video-level probabilities, by the loss that it is trained with."""

from __future__ import annotations

import torch
from torch import Tensor

from wtal.inference.branches import Branches
from wtal.models.mil import video_logits
from wtal.settings.config import RunConfig


def is_softmax(branches: Branches, name: str, config: RunConfig) -> bool:
    """Whether a branch's classes share one softmax; if not, each is a sigmoid of its own, as VLP's always are."""
    return config.cbp.activation == "softmax" and not branches.reads_clip(name)


def video_probabilities(logits: Tensor, lengths: Tensor, softmax: bool, divisor: int) -> Tensor:
    """Video-level class probabilities ``[B, C]`` of frame logits ``[B, T, C]``; ``divisor`` as in ``video_logits``."""
    pooled = video_logits(logits, lengths, divisor)
    return torch.softmax(pooled, 1) if softmax else torch.sigmoid(pooled)


def frame_scores_(logits: Tensor, softmax: bool) -> Tensor:
    """Frame scores of logits ``[B, T, C]``, in place; not yet scaled.

    Under a softmax over classes a snippet's logit, and not its probability, is what grows along an action: the
    probability is near 0 or 1 wherever one class leads, action or not (7 to 20 mAP lower on THUMOS14 features). Below
    0 there is less of the class than of none.
    """
    return logits.clamp_(min=0) if softmax else logits.sigmoid_()
