"""Snippet contrastive learning after CoLA (Zhang et al., CVPR 2021), written after the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..packed import Packed, PackedConv, shares, top_mean
from ..rules import Rule, TwoCurves
from .base import Baseline, Scored, Training


class Cola(Baseline):
    """Class activations that are never negative; their sum is actionness, which says what to contrast.

    The contrast pulls hard action snippets (the rim inside of what looks like action) towards the easy ones (of the
    highest actionness) and away from easy background, and hard background (the rim outside) the other way round.
    """

    training_settings = Training(epochs=24, learning_rate=1e-3)
    rule: Rule = TwoCurves()
    source = "Zhang et al., CVPR 2021"
    hidden = 256
    easy, hard = 5, 20
    inner, outer = 3, 6
    temperature = 0.07
    weight = 0.01

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.embed = PackedConv(width, self.hidden)
        self.drop = nn.Dropout(0.7)
        self.output = nn.Linear(self.hidden, classes, bias=False)

    def forward(self, batch: Packed) -> tuple[Tensor, Tensor]:
        """Embedding ``[R, H]`` and class activations ``[R, C]``."""
        embedded = torch.relu(self.embed(batch.rows, batch.lengths))
        return embedded, torch.relu(self.output(self.drop(embedded)))

    def loss(self, batch: Packed, labels: Tensor) -> Tensor:
        embedded, activations = self(batch)
        probabilities = top_mean(activations, batch.lengths, self.easy).softmax(1)
        return F.binary_cross_entropy(probabilities, shares(labels)) + self.weight * self.contrast(
            embedded, activations.sum(1).detach(), batch.lengths
        )

    def contrast(self, embedded: Tensor, actionness: Tensor, lengths: Sequence[int]) -> Tensor:
        """The two refinements, each averaged over the videos that have snippets for it."""
        action, background = [], []
        for own, level in zip(embedded.split([*lengths]), actionness.split([*lengths]), strict=True):
            easy, hard = max(1, len(own) // self.easy), max(1, len(own) // self.hard)
            kept = (torch.rand_like(level) > 0.6) / 0.4  # easy ones are drawn anew among two fifths
            easy_action = own[(level * kept).topk(easy).indices]
            easy_background = own[((level.max() - level) * kept).topk(easy).indices]
            inside, outside = rims(level > level.median(), self.inner, self.outer)
            if inside.any():
                chosen = own[_highest(level, inside, hard)]
                action.append(self._nce(chosen.mean(0), easy_action.mean(0), easy_background))
            if outside.any():
                chosen = own[_highest(level, outside, hard)]
                background.append(self._nce(chosen.mean(0), easy_background.mean(0), easy_action))
        return sum((torch.stack(each).mean() for each in (action, background) if each), embedded.new_zeros(()))

    def _nce(self, query: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
        keys = F.normalize(torch.cat([positive[None], negatives]), dim=1)
        similar = keys @ F.normalize(query, dim=0) / self.temperature
        return F.cross_entropy(similar, torch.tensor(0))

    def score(self, rows: Tensor) -> Scored:
        _, activations = self(Packed.of([rows]))
        video = top_mean(activations, [len(rows)], self.easy)[0].softmax(0)
        return Scored(activations, video, activations.sum(1))


def rims(inside: Tensor, narrow: int, wide: int) -> tuple[Tensor, Tensor]:
    """What lies just inside and just outside of the runs of ``inside`` ``[T]``, by erosion and dilation."""

    def dilate(mask: Tensor, size: int) -> Tensor:
        padded = F.pad(mask.float()[None, None], ((size - 1) // 2, size // 2))
        return F.max_pool1d(padded, size, 1)[0, 0] > 0

    def erode(mask: Tensor, size: int) -> Tensor:  # what lies beyond the video is not inside
        padded = F.pad(1 - mask.float()[None, None], ((size - 1) // 2, size // 2), value=1.0)
        return F.max_pool1d(padded, size, 1)[0, 0] == 0

    return erode(inside, narrow) & ~erode(inside, wide), dilate(inside, wide) & ~dilate(inside, narrow)


def _highest(level: Tensor, among: Tensor, count: int) -> Tensor:
    """The snippets of the highest level among some, at most ``count``."""
    return level.masked_fill(~among, -torch.inf).topk(min(count, int(among.sum()))).indices
