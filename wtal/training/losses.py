"""The loss of one training step: video labels alone, or pseudo-labels as well in the B and F steps.

All terms are per video, ``[B]``, averaged over the video's own snippets; the caller averages over videos. So
they are the same under gradient accumulation and several processes. Everything works on float32 and on the
batch cut to its longest video: padding cannot change a bit.
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
from wtal.training.video_losses import attention_loss, check_labels, class_loss, video_loss


@dataclass(frozen=True)
class DistillLoss:
    """Loss against pseudo-labels. Each term is ``[B]``: the mean over a video's snippets of that kind, 0 without any.

    Foreground and background have equal weight, however many snippets each has. Weighted by number, the few
    foreground snippets would hardly count (5 to 11 mAP in a trial).

    Attributes:
        foreground: over snippets with pseudo-label 1 of labelled classes.
        background: over snippets with pseudo-label 0 of labelled classes.
        absent: over all valid snippets of the classes that the video does not have; 0 under a softmax, whose
            other two terms include these classes.
    """

    foreground: Tensor
    background: Tensor
    absent: Tensor


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
        weights: ``[B, T, C]`` not negative, of the pseudo-labels; None weights all alike. With ``softmax`` a snippet
            has the mean weight of its foreground classes, or of the video's classes if it is background.
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
        return DistillLoss(_mean(loss, some), _mean(loss, none), torch.zeros_like(loss[:, 0]))

    def mean_weight(classes: Tensor) -> Tensor:
        total: Tensor = torch.where(classes, weights, 0.0).sum(2) / classes.sum(2).clamp(min=1)
        return total

    return DistillLoss(
        _mean(loss, some, mean_weight(foreground)),
        _mean(loss, none, mean_weight(background)),
        torch.zeros_like(loss[:, 0]),
    )


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
    """All terms of one training step and their weighted sum.

    Args:
        outputs: outputs of the branch in training.
        lengths: ``[B]`` int64.
        labels: ``[B, C]`` zeros and ones.
        config: the weights.
        target: pseudo-labels ``[B, T, C]`` int8; None trains with video labels only (warm-up).
        weights: weights of the pseudo-labels, see :func:`distill_loss`.
        softmax: the classes of a video share one softmax.

    Returns:
        ``[B]`` each: ``total``, ``video`` and (unweighted), of a branch with attention, the terms of
        :class:`~wtal.training.video_losses.AttentionLoss`, with an embedding ``contrast``, with a target
        ``foreground``, ``background``, ``absent``.
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
        terms |= vars(distill)
        total = total + config.distill * (distill.foreground + distill.background) + config.absent * distill.absent
    return {"total": total, **terms}
