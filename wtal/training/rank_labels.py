"""Pseudo-labels from the temporal ranks of a teacher's scores, and their precision and recall."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wtal.models.masks import longest, valid_mask
from wtal.training.video_losses import check_labels

IGNORE = -1
"""The pseudo-label of a snippet that the loss ignores, and of padding."""


@torch.no_grad()
def rank_labels(
    logits: Tensor, lengths: Tensor, labels: Tensor, foreground: float | Tensor, background: float | Tensor
) -> Tensor:
    """Pseudo-labels from a teacher's logits, by temporal rank within each video and labelled class (ours).

    In a video of n snippets, a snippet with r snippets ranked below it has the quantile (r + 1/2) / n. Ranks are used
    because the probabilities of a trained teacher saturate. Of equal logits the earlier has the lower rank.

    Args:
        logits: ``[B, T, C]`` of the teacher; values after the end of a video are not used.
        lengths: ``[B]`` int64.
        labels: ``[B, C]`` zeros and ones, the video-level labels.
        foreground: quantiles above this threshold are foreground; a number or ``[B, C]``.
        background: quantiles below this threshold are background; a number or ``[B, C]``.

    Returns:
        ``[B, T, C]`` int8: 1 foreground, 0 background, -1 ignored. Classes that a video does not have are 0.
        Padding is -1.

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
    """The quantile of each snippet in its video, per class, as in :func:`rank_labels`.

    Returns:
        float64 ``[B, T', C]`` in (0, 1), where T' is the length of the longest video; undefined after the end of a
        video.
    """
    size = longest(scores, lengths)
    valid = valid_mask(lengths, size)[..., None]
    order = scores[:, :size].masked_fill(~valid, torch.inf).argsort(dim=1, stable=True)
    places = torch.arange(size, device=scores.device)[:, None]
    rank = torch.empty_like(order).scatter_(1, order, places.expand_as(order))
    return (rank + 0.5).double() / lengths.clamp(min=1)[:, None, None]


@dataclass(frozen=True)
class PseudoLabelQuality:
    """Counts of snippets that compare pseudo-labels with ground truth, in the labelled classes of the videos.

    The counts of several batches are added with ``+``. A ratio with denominator 0 is None.
    """

    foreground: int = 0
    """Snippets with a foreground label."""
    foreground_right: int = 0
    """Snippets with a foreground label that are action."""
    background: int = 0
    """Snippets with a background label."""
    background_right: int = 0
    """Snippets with a background label that are not action."""
    action: int = 0
    """Snippets that are action in the ground truth."""
    rest: int = 0
    """Snippets that are not action in the ground truth."""

    @property
    def foreground_precision(self) -> float | None:
        """The share of foreground labels that are action."""
        return self.foreground_right / self.foreground if self.foreground else None

    @property
    def foreground_recall(self) -> float | None:
        """The share of action snippets with a foreground label."""
        return self.foreground_right / self.action if self.action else None

    @property
    def background_precision(self) -> float | None:
        """The share of background labels that are not action."""
        return self.background_right / self.background if self.background else None

    @property
    def background_recall(self) -> float | None:
        """The share of other snippets with a background label."""
        return self.background_right / self.rest if self.rest else None

    def rates(self) -> dict[str, float | None]:
        """Precision and recall of foreground and background, by name."""
        kinds = ("foreground", "background")
        return {f"{kind} {what}": getattr(self, f"{kind}_{what}") for kind in kinds for what in ("precision", "recall")}

    def __add__(self, other: PseudoLabelQuality) -> PseudoLabelQuality:
        return PseudoLabelQuality(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def pseudo_label_quality(target: Tensor, truth: Tensor, lengths: Tensor, labels: Tensor) -> PseudoLabelQuality:
    """Compare pseudo-labels with ground truth. The result is only logged; training does not use it.

    Args:
        target: ``[B, T, C]`` int8 from :func:`rank_labels`.
        truth: ``[B, T, C]`` bool, whether the snippet has an action of the class.
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
