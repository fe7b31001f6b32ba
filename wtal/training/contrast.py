"""Contrast between hard and easy snippets (after SniCo of CoLA: Zhang et al., CVPR 2021), from video-level labels.

Where a video's scores cross their median, snippets are hard to tell apart: those just inside should resemble the
video's most confident action, those just outside its most confident background.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wtal.models.masks import at_least_float32, trim, valid_mask
from wtal.training.video_losses import check_labels

MARGIN = 3
"""Hard snippets are at most this far from where the scores cross their median."""
HARD, EASY = 20, 5
"""Of n snippets, at most n / HARD are taken as hard on each side, and n / EASY as easy; at least one."""
TEMPERATURE = 0.07
"""Cosines are divided by this."""


def contrast_loss(embedding: Tensor, logits: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
    """The mean embedding of hard action to that of easy action and from easy background; and the other way round.

    A video's score at a snippet is the highest logit of its own classes; no gradient goes through it. Snippets above
    the median score are action, the others background; hard are the highest within :data:`MARGIN` snippets of the
    other kind, easy the highest of all for action and the lowest for background. Either half is
    ``-log(e(q, k) / (e(q, k) + sum over n of e(q, n)))``, ``e`` the exponential of the cosine by :data:`TEMPERATURE`,
    q and k means of embeddings of length 1, and n each one embedding of the other easy kind.

    Args:
        embedding: ``[B, T, D]``.
        logits: ``[B, T, C]``.
        lengths: ``[B]`` int64.
        labels: ``[B, C]`` zeros and ones.

    Returns:
        ``[B]``; a half without a hard snippet is 0, a video without a label has none.
    """
    check_labels(logits, labels)
    if embedding.shape[:2] != logits.shape[:2]:
        raise ValueError(f"embedding has shape {tuple(embedding.shape)} beside logits of {tuple(logits.shape)}")
    features = F.normalize(trim(at_least_float32(embedding), lengths), dim=2)
    valid = valid_mask(lengths, features.shape[1])  # [B, T]
    with torch.no_grad():
        own = trim(at_least_float32(logits), lengths).masked_fill((labels == 0)[:, None], -torch.inf)
        score = own.amax(2).masked_fill(~valid, torch.inf)  # [B, T]
        # By sorting: the library's median has no deterministic version on CUDA.
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
    """Which snippets have one of ``mask`` ``[B, T]`` within the margin."""
    return F.max_pool1d(mask.float()[:, None], 2 * MARGIN + 1, 1, MARGIN)[:, 0] > 0


def _highest(score: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """The ``count`` ``[B]`` highest of each video among ``mask`` ``[B, T]``; equal scores in the order of time."""
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
