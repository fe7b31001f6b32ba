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
from wtal.training.video_losses import attention_loss, check_labels, video_loss


@dataclass(frozen=True)
class DistillLoss:
    """Binary cross-entropy against pseudo-labels, each term ``[B]``: a video's mean, 0 where it has no such
    snippet.

    Foreground and background have equal weight, however many snippets each has. Weighted by number, the few
    foreground snippets would hardly count (5 to 11 mAP in a trial).

    Attributes:
        foreground: over snippets with pseudo-label 1 of labelled classes.
        background: over snippets with pseudo-label 0 of labelled classes.
        absent: over all valid snippets of the classes that the video does not have.
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
        weights: ``[B, T, C]`` not negative, of the pseudo-labels; None weights all alike.
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
        distill = distill_loss(logits, target, lengths, labels, weights)
        terms |= vars(distill)
        total = total + config.distill * (distill.foreground + distill.background) + config.absent * distill.absent
    return {"total": total, **terms}
