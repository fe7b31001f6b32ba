"""The loss of one training step: from video labels alone, or in B and F steps from pseudo-labels as well.

Every term has one value per video, ``[B]``, which is the mean over the video's own snippets. The caller averages over
the videos. So the loss does not depend on gradient accumulation or on the number of processes. The losses are computed
in at least float32. The batch is cut to its longest video, so that padding does not change a bit of the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wtal.models.cbp import FrameOutputs
from wtal.models.masks import at_least_float32, trim, valid_mask
from wtal.settings.config import LossConfig
from wtal.training.contrast import contrast_loss
from wtal.training.video_losses import attention_loss, check_labels, video_loss


@dataclass(frozen=True)
class DistillLoss:
    """Binary cross-entropy against pseudo-labels. Each term is the mean of a video, ``[B]``, or 0 without a snippet.

    Foreground and background have equal weight, whatever their numbers of snippets. If snippets had equal weight, the
    few foreground snippets would have little effect (a trial gave 5 to 11 mAP).

    Attributes:
        foreground: over snippets with pseudo-label 1, in the classes of the video.
        background: over snippets with pseudo-label 0, in the classes of the video.
        absent: over all valid snippets, in the other classes.
    """

    foreground: Tensor
    background: Tensor
    absent: Tensor


def distill_loss(
    logits: Tensor, target: Tensor, lengths: Tensor, labels: Tensor, weights: Tensor | None = None
) -> DistillLoss:
    """The student's loss against pseudo-labels.

    Args:
        logits: ``[B, T, C]`` of the student.
        target: ``[B, T, C]`` int8 of :func:`wtal.training.rank_labels.rank_labels`.
        lengths: ``[B]`` int64.
        labels: ``[B, C]`` zeros and ones.
        weights: the weights of the pseudo-labels, ``[B, T, C]``, not negative; None: equal weights.
    """
    check_labels(logits, labels)
    if target.shape != logits.shape:
        raise ValueError(f"target has shape {tuple(target.shape)}; expected {tuple(logits.shape)} as the logits")
    x = trim(at_least_float32(logits), lengths)
    target = target[:, : x.shape[1]]
    valid = valid_mask(lengths, x.shape[1])[..., None]
    present = (labels > 0)[:, None]  # [B, 1, C]
    loss = F.binary_cross_entropy_with_logits(x, (target == 1).to(x.dtype), reduction="none")

    def mean(mask: Tensor, weights: Tensor | None = None) -> Tensor:
        mask = mask & valid
        if weights is None:
            return (loss * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
        share = torch.where(mask, weights[:, : x.shape[1]], 0.0)
        return (loss * share).sum((1, 2)) / share.sum((1, 2)).clamp(min=torch.finfo(share.dtype).tiny)

    return DistillLoss(
        mean((target == 1) & present, weights),
        mean((target == 0) & present, weights),
        mean((target == 0) & ~present),
    )


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
        branch with an embedding has ``contrast``, and a target gives ``foreground``, ``background`` and ``absent``.
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
        distill = distill_loss(logits, target, lengths, labels, weights)
        terms |= vars(distill)
        total = total + config.distill * (distill.foreground + distill.background) + config.absent * distill.absent
    return {"total": total, **terms}
