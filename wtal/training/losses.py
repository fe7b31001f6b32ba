"""What the two branches teach each other: pseudo-labels of the B and F steps, and the loss of one training step.

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
from wtal.models.masks import at_least_float32, longest, trim, valid_mask
from wtal.settings.config import LossConfig
from wtal.training.contrast import contrast_loss
from wtal.training.video_losses import attention_loss, check_labels, video_loss

IGNORE = -1
"""The pseudo-label of a snippet that takes no part, padding included."""


@torch.no_grad()
def pseudo_labels(
    logits: Tensor, lengths: Tensor, labels: Tensor, foreground: float | Tensor, background: float | Tensor
) -> Tensor:
    """Pseudo-labels from a teacher's logits, by temporal rank within each video and labelled class (ours).

    Of n snippets the one that r others rank below has the quantile (r + 1/2) / n. Ranks and not
    probabilities: a trained teacher's probabilities saturate. Equal logits rank in the order of time.

    Args:
        logits: ``[B, T, C]`` of the teacher; anything beyond each length.
        lengths: ``[B]`` int64.
        labels: ``[B, C]`` zeros and ones, the video-level labels.
        foreground: quantiles above this are foreground; one for all or ``[B, C]``.
        background: quantiles below this are background; likewise.

    Returns:
        ``[B, T, C]`` int8: 1 foreground, 0 background, -1 ignored. Classes that a video does not have are 0;
        padding is -1.

    Raises:
        ValueError: the thresholds are not in order within [0, 1], or a shape does not fit.
    """
    above, below = (
        torch.as_tensor(bound, dtype=torch.float64, device=logits.device) for bound in (foreground, background)
    )
    if not ((below >= 0) & (below <= above) & (above <= 1)).all():
        raise ValueError(
            f"background is {background} and foreground {foreground}; expected 0 <= background <= foreground <= 1"
        )
    check_labels(logits, labels)
    quantile = temporal_quantiles(logits, lengths)
    target = torch.full(logits.shape, IGNORE, dtype=torch.int8, device=logits.device)
    inside = target[:, : quantile.shape[1]]
    valid = valid_mask(lengths, quantile.shape[1])[..., None]  # [B, T, 1]
    inside[quantile > above.expand(labels.shape)[:, None]] = 1
    inside[quantile < below.expand(labels.shape)[:, None]] = 0
    inside.masked_fill_((labels == 0)[:, None], 0)
    inside.masked_fill_(~valid, IGNORE)
    return target


def temporal_quantiles(scores: Tensor, lengths: Tensor) -> Tensor:
    """Where each snippet ranks among its video's, per class: float64 ``[B, T', C]`` in (0, 1), T' the longest video.

    Anything beyond each length. Equal scores rank in the order of time.
    """
    size = longest(scores, lengths)
    valid = valid_mask(lengths, size)[..., None]
    order = scores[:, :size].masked_fill(~valid, torch.inf).argsort(dim=1, stable=True)
    places = torch.arange(size, device=scores.device)[:, None]
    rank = torch.empty_like(order).scatter_(1, order, places.expand_as(order))
    return (rank + 0.5).double() / lengths.clamp(min=1)[:, None, None]


@dataclass(frozen=True)
class DistillLoss:
    """Binary cross-entropy against pseudo-labels, each term ``[B]``: a video's mean, 0 where it has no such
    snippet.

    Foreground and background count alike however many snippets each has: left to their numbers, foreground
    would drown (5 to 11 mAP in a trial).

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
        target: ``[B, T, C]`` int8 of :func:`pseudo_labels`.
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
        outputs: of the branch in training.
        lengths: ``[B]`` int64.
        labels: ``[B, C]`` zeros and ones.
        config: the weights.
        target: pseudo-labels ``[B, T, C]`` int8; None trains with video labels only (warm-up).
        weights: of the pseudo-labels, see :func:`distill_loss`.
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


@dataclass(frozen=True)
class PseudoLabelQuality:
    """How right pseudo-labels are, over the labelled classes; add those of several batches with ``+``.

    Counts of snippets. A ratio without any snippet under it is None.
    """

    foreground: int = 0
    """Labelled foreground."""
    foreground_right: int = 0
    """Labelled foreground that is action."""
    background: int = 0
    """Labelled background."""
    background_right: int = 0
    """Labelled background that is none."""
    action: int = 0
    """Snippets of action in truth."""
    rest: int = 0
    """Snippets of anything else in truth."""

    @property
    def foreground_precision(self) -> float | None:
        """Of the foreground labels, the share that is action."""
        return self.foreground_right / self.foreground if self.foreground else None

    @property
    def foreground_recall(self) -> float | None:
        """Of the action, the share labelled foreground."""
        return self.foreground_right / self.action if self.action else None

    @property
    def background_precision(self) -> float | None:
        """Of the background labels, the share that is no action."""
        return self.background_right / self.background if self.background else None

    @property
    def background_recall(self) -> float | None:
        """Of what is no action, the share labelled background."""
        return self.background_right / self.rest if self.rest else None

    def rates(self) -> dict[str, float | None]:
        """Precision and recall of both kinds by name."""
        kinds = ("foreground", "background")
        return {f"{kind} {what}": getattr(self, f"{kind}_{what}") for kind in kinds for what in ("precision", "recall")}

    def __add__(self, other: PseudoLabelQuality) -> PseudoLabelQuality:
        return PseudoLabelQuality(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def pseudo_label_quality(target: Tensor, truth: Tensor, lengths: Tensor, labels: Tensor) -> PseudoLabelQuality:
    """Compares pseudo-labels with ground truth, for the log alone: training never sees this.

    Args:
        target: ``[B, T, C]`` int8 of :func:`pseudo_labels`.
        truth: ``[B, T, C]`` bool, action of that class at that snippet.
        lengths: ``[B]`` int64.
        labels: ``[B, C]`` zeros and ones.
    """
    check_labels(target, labels)
    if truth.shape != target.shape:
        raise ValueError(f"truth has shape {tuple(truth.shape)}; expected {tuple(target.shape)} as the target")
    asked = valid_mask(lengths, target.shape[1])[..., None] & (labels > 0)[:, None]
    foreground, background = (target == 1) & asked, (target == 0) & asked
    action, rest = truth.bool() & asked, ~truth.bool() & asked
    masks = (foreground, foreground & action, background, background & rest, action, rest)
    return PseudoLabelQuality(*(int(n) for n in torch.stack([mask.sum() for mask in masks])))
