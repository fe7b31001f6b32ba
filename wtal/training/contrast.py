"""Contrast between hard and easy snippets (after SniCo of CoLA: Zhang et al., CVPR 2021), from video-level labels.

Snippets near a crossing of a video's median score are hard to classify. The loss makes those above the median similar
to the video's most confident action, and those below it similar to the video's most confident background.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wtal.models.masks import at_least_float32, trim, valid_mask
from wtal.training.video_losses import check_labels

MARGIN = 3
"""The largest distance, in snippets, of a hard snippet from the other side of the median."""
HARD, EASY = 20, 5
"""Of n snippets, at most n / HARD on each side are hard, and n / EASY on each side are easy; at least one each."""
TEMPERATURE = 0.07
"""Cosine similarities are divided by this value."""


def contrast_loss(embedding: Tensor, logits: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
    """Contrastive loss that pulls hard action to easy action, and hard background to easy background.

    The score of a snippet is the highest logit among the video's labels; it has no gradient. Snippets above the median
    score are action, the others are background. Hard snippets are those of highest score within :data:`MARGIN` snippets
    of the other kind. Easy action has the highest scores of the video, easy background the lowest.

    The loss has one half for action and one for background. Each half is
    ``-log(e(q, k) / (e(q, k) + sum over n of e(q, n)))``. ``e`` is ``exp(cosine / TEMPERATURE)``, q is the mean
    embedding of the hard snippets, k that of the easy snippets of the same kind, and n is each easy snippet of the
    other kind. Embeddings are scaled to length 1 before the mean.

    Args:
        embedding: ``[B, T, D]``.
        logits: ``[B, T, C]``.
        lengths: ``[B]`` int64.
        labels: ``[B, C]`` zeros and ones.

    Returns:
        ``[B]``; a half without a hard snippet is 0, so a video without a label has 0.
    """
    check_labels(logits, labels)
    if embedding.shape[:2] != logits.shape[:2]:
        raise ValueError(f"embedding has shape {tuple(embedding.shape)} beside logits of {tuple(logits.shape)}")
    features = F.normalize(trim(at_least_float32(embedding), lengths), dim=2)
    valid = valid_mask(lengths, features.shape[1])  # [B, T]
    with torch.no_grad():
        own = trim(at_least_float32(logits), lengths).masked_fill((labels == 0)[:, None], -torch.inf)
        score = own.amax(2).masked_fill(~valid, torch.inf)  # [B, T]
        # torch.median is not deterministic on CUDA, so the scores are sorted.
        median = score.sort(1).values.gather(1, (lengths[:, None] - 1).clamp(min=0) // 2)
        above = (score > median) & valid
        below = ~above & valid
        hard = (lengths // HARD).clamp(min=1)
        easy = (lengths // EASY).clamp(min=1)
        labelled = labels.any(1, keepdim=True)
        hard_action = _highest(score, above & _near(below) & labelled, hard)
        hard_background = _highest(score, below & _near(above) & labelled, hard)
        easy_action = _highest(score, valid, easy)
        easy_background = _highest(-score, valid, easy)
    return _half(features, hard_action, easy_action, easy_background) + _half(
        features, hard_background, easy_background, easy_action
    )


def _near(mask: Tensor) -> Tensor:
    """Whether a snippet of ``mask`` is within the margin of each snippet, ``[B, T]``."""
    return F.max_pool1d(mask.float()[:, None], 2 * MARGIN + 1, 1, MARGIN)[:, 0] > 0


def _highest(score: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """The ``count`` ``[B]`` snippets of highest score in ``mask`` ``[B, T]``; the earlier of equal scores first."""
    order = score.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
    first = torch.arange(score.shape[1], device=score.device) < count[:, None]
    return torch.zeros_like(mask).scatter_(1, order, first) & mask


def _half(features: Tensor, query: Tensor, key: Tensor, others: Tensor) -> Tensor:
    def mean(mask: Tensor) -> Tensor:
        return F.normalize((features * mask[..., None]).sum(1), dim=1)  # [B, D]

    q = mean(query)
    same = (q * mean(key)).sum(1, keepdim=True)  # [B, 1]
    other = torch.einsum("btd,bd->bt", features, q).masked_fill(~others, -torch.inf)
    loss = torch.logsumexp(torch.cat([same, other], 1) / TEMPERATURE, 1) - same[:, 0] / TEMPERATURE
    return torch.where(query.any(1), loss, torch.zeros_like(loss))
