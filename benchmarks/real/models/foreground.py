"""Foreground attention and a background class, after BaSNet (Lee et al., 2020) and CO2-Net (Hong et al., 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..packed import Packed, PackedConv, shares, top_mean
from ..rules import Contrast, Rule
from .base import Baseline, Scored, Training


class Foreground(Baseline):
    """A classifier with a background class, and an attention that says which snippets are of any action.

    Every video holds background; with its logits suppressed by the attention it holds none. The attention agrees with
    the background class, and is small on the whole.
    """

    training_settings = Training(epochs=14, learning_rate=1e-3)
    rule: Rule = Contrast()
    source = "Lee et al., AAAI 2020; Hong et al., ACM MM 2021"
    hidden = 256
    divisor = 7.0
    small, agree = 0.1, 0.1

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.embed = PackedConv(width, self.hidden)
        self.drop = nn.Dropout(0.7)
        self.output = nn.Linear(self.hidden, classes + 1)
        self.attend = nn.Sequential(nn.Linear(width, 256), nn.LeakyReLU(0.2), nn.Dropout(0.5), nn.Linear(256, 1))

    def forward(self, batch: Packed) -> tuple[Tensor, Tensor]:
        """Logits ``[R, C + 1]``, the last of background, and attention ``[R, 1]``."""
        embedded = F.leaky_relu(self.embed(batch.rows, batch.lengths), 0.2)
        return self.output(self.drop(embedded)), torch.sigmoid(self.attend(batch.rows))

    def loss(self, batch: Packed, labels: Tensor) -> Tensor:
        logits, attention = self(batch)
        background = labels.new_ones(len(labels), 1)
        base = F.cross_entropy(
            top_mean(logits, batch.lengths, self.divisor), shares(torch.cat([labels, background], 1))
        )
        quiet = F.cross_entropy(
            top_mean(suppressed(logits, attention), batch.lengths, self.divisor),
            shares(torch.cat([labels, 0 * background], 1)),
        )
        agree = (1 - attention - logits.softmax(1)[:, -1:]).abs().mean()
        return base + quiet + self.small * attention.mean() + self.agree * agree

    def score(self, rows: Tensor) -> Scored:
        logits, attention = self(Packed.of([rows]))
        quiet = suppressed(logits, attention)
        video = top_mean(quiet, [len(rows)], self.divisor)[0].softmax(0)[:-1]
        return Scored(quiet[:, :-1], video, attention[:, 0])


def suppressed(logits: Tensor, attention: Tensor) -> Tensor:
    """Logits drawn towards the snippet's lowest where the attention is low: ``[R, C]``."""
    lowest = logits.amin(1, keepdim=True)
    return lowest + attention * (logits - lowest)
