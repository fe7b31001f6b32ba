"""The loss of one training step: from video labels alone, or in B and F steps from pseudo-labels as well.

Every term has one value per video, ``[B]``, which is the mean over the video's own snippets. The caller averages over
the videos. So the loss does not depend on gradient accumulation or on the number of processes. The losses are computed
in at least float32. The batch is cut to its longest video, so that padding does not change a bit of the result.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from wtal.models.cbp import FrameOutputs
from wtal.models.masks import at_least_float32, trim, valid_mask
from wtal.settings.config import LossConfig
from wtal.training.contrast import contrast_loss
from wtal.training.video_losses import attention_loss, check_labels, class_loss, video_loss


@dataclass(frozen=True)
class DistillLoss:
    """Loss against pseudo-labels. Each term is the mean of a video, ``[B]``, or 0 without a snippet of its kind.

    Foreground and background have equal weight, whatever their numbers of snippets. If snippets had equal weight, the
    few foreground snippets would have little effect (5 to 11 mAP lower in a trial).

    Attributes:
        foreground: over snippets with pseudo-label 1, in the classes of the video.
        background: over snippets with pseudo-label 0, in the classes of the video.
        absent: over all valid snippets, in the other classes. None under a softmax, whose other terms include them.
    """

    foreground: Tensor
    background: Tensor
    absent: Tensor | None = None

    @classmethod
    def names(cls, softmax: bool) -> list[str]:
        """The names of the terms that there are."""
        return [field.name for field in fields(cls) if not (softmax and field.name == "absent")]


def distill_loss(
    logits: Tensor,
    target: Tensor,
    lengths: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    softmax: bool = False,
) -> DistillLoss:
    """The student's loss against pseudo-labels.

    Without ``softmax`` each class of a snippet has a binary cross-entropy of its own. With ``softmax`` each snippet has
    one cross-entropy: of its softmax with its foreground classes, which share the target equally, or, if it is
    background for every class, with all classes alike. The video-level losses train such a branch in the same two ways
    (:func:`~wtal.training.video_losses.class_loss`). Binary cross-entropies would train another scale of logits
    (docs/real.md).

    Args:
        logits: ``[B, T, C]`` of the student.
        target: ``[B, T, C]`` int8 of :func:`wtal.training.rank_labels.rank_labels`.
        lengths: ``[B]`` int64.
        labels: ``[B, C]`` zeros and ones.
        weights: the weights of the pseudo-labels, ``[B, T, C]``, not negative; None: equal weights. With ``softmax`` a
            snippet has the mean weight of its foreground classes, or of the video's classes if it is background.
        softmax: the classes of a snippet share one softmax.
    """
    check_labels(logits, labels)
    if target.shape != logits.shape:
        raise ValueError(f"target has shape {tuple(target.shape)}; expected {tuple(logits.shape)} as the logits")
    x = trim(at_least_float32(logits), lengths)
    size = x.shape[1]
    valid = valid_mask(lengths, size)[..., None]
    present = (labels > 0)[:, None]  # [B, 1, C]
    target = target[:, :size]
    foreground, background = (((target == kind) & present & valid) for kind in (1, 0))
    if weights is not None:
        weights = weights[:, :size]
    if softmax:
        return _softmax_distill_loss(x.masked_fill(~valid, 0), foreground, background, present, weights)
    loss = F.binary_cross_entropy_with_logits(x, (target == 1).to(x.dtype), reduction="none")
    return DistillLoss(
        _mean(loss, foreground, weights),
        _mean(loss, background, weights),
        _mean(loss, (target == 0) & ~present & valid),
    )


def _softmax_distill_loss(
    x: Tensor, foreground: Tensor, background: Tensor, present: Tensor, weights: Tensor | None
) -> DistillLoss:
    """:func:`distill_loss` under a softmax; the masks are ``[B, T, C]`` of the classes that the video has."""
    some = foreground.any(2)  # [B, T]
    none = (background | ~present).all(2) & background.any(2)
    loss = class_loss(x.flatten(0, 1), foreground.flatten(0, 1), softmax=True).view(some.shape)
    if weights is None:
        return DistillLoss(_mean(loss, some), _mean(loss, none))

    def mean_weight(classes: Tensor) -> Tensor:
        total: Tensor = torch.where(classes, weights, 0.0).sum(2) / classes.sum(2).clamp(min=1)
        return total

    return DistillLoss(_mean(loss, some, mean_weight(foreground)), _mean(loss, none, mean_weight(background)))


def _mean(loss: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of each video, ``[B]``, over the loss values in the mask; 0 without any."""
    if weights is None:
        return (loss * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)
    share = torch.where(mask, weights, 0.0)
    return (loss * share).flatten(1).sum(1) / share.flatten(1).sum(1).clamp(min=torch.finfo(share.dtype).tiny)


def step_loss(
    outputs: FrameOutputs,
    lengths: Tensor,
    labels: Tensor,
    config: LossConfig,
    target: Tensor | None = None,
    weights: Tensor | None = None,
    softmax: bool = False,
) -> dict[str, Tensor]:
    """The terms of one training step and their weighted sum.

    Args:
        outputs: the outputs of the branch that is trained.
        lengths: ``[B]`` int64.
        labels: ``[B, C]`` zeros and ones.
        config: the weights.
        target: pseudo-labels ``[B, T, C]`` int8; None trains with video labels only (warm-up).
        weights: weights of the pseudo-labels, see :func:`distill_loss`.
        softmax: True for one softmax over the classes, False for a sigmoid per class.

    Returns:
        The terms by name, ``[B]`` each. ``total`` is the weighted sum; the others are not weighted. ``video`` is
        always there. A branch with attention has the terms of :class:`~wtal.training.video_losses.AttentionLoss`, a
        branch with an embedding has ``contrast``, and a target gives the terms of :class:`DistillLoss`.
    """
    logits = outputs.logits
    terms = {"video": video_loss(logits, lengths, labels, config.topk_divisor, softmax)}
    total = config.video * terms["video"]
    if outputs.attention is not None:
        through = attention_loss(logits, outputs.attention, lengths, labels, softmax)
        terms |= vars(through)
        total = total + config.attended * through.attended + config.unattended * through.unattended
        total = total + config.attention * through.attention
    if outputs.embedding is not None:
        terms["contrast"] = contrast_loss(outputs.embedding, logits, lengths, labels)
        total = total + config.contrast * terms["contrast"]
    if target is not None:
        distill = distill_loss(logits, target, lengths, labels, weights, softmax)
        terms |= {name: getattr(distill, name) for name in DistillLoss.names(softmax)}
        total = total + config.distill * (distill.foreground + distill.background)
        if distill.absent is not None:
            total = total + config.absent * distill.absent
    return {"total": total, **terms}
