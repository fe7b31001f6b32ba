"""Losses from video-level labels: the multiple-instance loss, and the loss of class-agnostic foreground attention.

Every term has one value per video, ``[B]``, as in :mod:`wtal.training.losses`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wtal.models.masks import at_least_float32, trim, valid_mask
from wtal.models.mil import video_logits


def video_loss(logits: Tensor, lengths: Tensor, labels: Tensor, divisor: int, softmax: bool = False) -> Tensor:
    """Multiple-instance loss from video-level labels: :func:`class_loss` of :func:`wtal.models.mil.video_logits`.

    Args:
        logits: ``[B, T, C]``.
        lengths: ``[B]`` int64.
        labels: ``[B, C]`` zeros and ones.
        divisor: see ``video_logits``.
        softmax: see ``class_loss``.

    Returns:
        ``[B]`` float32.
    """
    check_labels(logits, labels)
    return class_loss(video_logits(logits, lengths, divisor), labels, softmax)


def class_loss(pooled: Tensor, labels: Tensor, softmax: bool) -> Tensor:
    """The loss ``[B]`` of video-level logits ``[B, C]`` against labels ``[B, C]``.

    With ``softmax`` it is the cross-entropy of the softmax over classes with a target that is uniform over the video's
    labels, or uniform over all classes if the video has no label. Otherwise it is half the sum of the binary
    cross-entropies of the classes.
    """
    labels = labels.to(pooled.dtype)
    if not softmax:
        return F.binary_cross_entropy_with_logits(pooled, labels, reduction="none").sum(1) / 2
    count = labels.sum(1, keepdim=True)
    target = torch.where(count > 0, labels / count.clamp(min=1), torch.full_like(labels, 1 / labels.shape[1]))
    return -(target * torch.log_softmax(pooled, 1)).sum(1)


@dataclass(frozen=True)
class AttentionLoss:
    """The terms that train a class-agnostic foreground attention, ``[B]`` each.

    Attributes:
        attended: :func:`class_loss` of the mean logits, weighted by the attention, against the video's labels.
        unattended: :func:`class_loss` of the mean logits, weighted by 1 minus the attention, against no label.
        attention: the mean attention of the video's snippets. As a loss it keeps the attention sparse.
    """

    attended: Tensor
    unattended: Tensor
    attention: Tensor


def attention_loss(logits: Tensor, attention: Tensor, lengths: Tensor, labels: Tensor, softmax: bool) -> AttentionLoss:
    """Foreground attention from video-level labels (after Nguyen et al., ICCV 2019, and Lee et al., AAAI 2021).

    The foreground has the classes of the video, and the background has no class.

    Args:
        logits: ``[B, T, C]``.
        attention: ``[B, T]`` logits; the attention is their sigmoid.
        lengths: ``[B]`` int64.
        labels: ``[B, C]`` zeros and ones.
        softmax: see :func:`class_loss`.
    """
    check_labels(logits, labels)
    if attention.shape != logits.shape[:2]:
        raise ValueError(f"attention has shape {tuple(attention.shape)}; expected {tuple(logits.shape[:2])}")
    x = trim(at_least_float32(logits), lengths)
    valid = valid_mask(lengths, x.shape[1])[..., None]  # [B, T, 1]
    x = x.masked_fill(~valid, 0)
    share = torch.sigmoid(trim(at_least_float32(attention), lengths))[..., None].masked_fill(~valid, 0)

    def mean(weight: Tensor) -> Tensor:
        total: Tensor = (weight * x).sum(1) / weight.sum(1).clamp(min=1e-6)
        return total

    none = torch.zeros_like(labels)
    return AttentionLoss(
        class_loss(mean(share), labels, softmax),
        class_loss(mean((1 - share).masked_fill(~valid, 0)), none, softmax),
        share.sum((1, 2)) / lengths.clamp(min=1),
    )


def check_labels(frames: Tensor, labels: Tensor) -> None:
    """Raise a ValueError unless ``frames`` is ``[B, T, C]`` and ``labels`` is ``[B, C]``."""
    if frames.ndim != 3 or labels.shape != (frames.shape[0], frames.shape[2]):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} beside frames of shape {tuple(frames.shape)}; "
            "expected [B, C] beside [B, T, C]"
        )
