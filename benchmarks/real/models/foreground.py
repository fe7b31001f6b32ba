"""Foreground attention, after BaSNet (Lee et al., 2020), Lee et al. (2021) and CO2-Net (Hong et al., 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..packed import Packed, PackedConv, shares, top_mean, weighted_mean
from ..rules import Contrast, Rule
from .base import Baseline, Scored, Training


class Foreground(Baseline):
    """Two layers, and an attention that says which snippets are of any action.

    Snippets weighted by the attention show the video's classes; weighted by the rest they speak for every class alike,
    as background does in Lee et al., 2021. A background class, as BaSNet and CO2-Net have it, was lower in
    cross-validation on the features that this was tuned for (docs/baselines.md).
    """

    training_settings = Training(epochs=14, learning_rate=1e-3)
    rule: Rule = Contrast()
    source = "Lee et al., AAAI 2020 and 2021; Hong et al., ACM MM 2021"
    hidden = 256
    divisor = 8
    attended, small = 0.5, 0.05
    """Weights of the two losses under attention, and of its mean."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.embed = PackedConv(width, self.hidden)
        self.drop = nn.Dropout(0.7)
        self.output = nn.Linear(self.hidden, classes)
        self.attend = nn.Linear(self.hidden, 1)

    def forward(self, batch: Packed) -> tuple[Tensor, Tensor]:
        """Logits ``[R, C]`` and attention ``[R, 1]``."""
        embedded = self.drop(torch.relu(self.embed(batch.rows, batch.lengths)))
        return self.output(embedded), torch.sigmoid(self.attend(embedded))

    def loss(self, batch: Packed, labels: Tensor) -> Tensor:
        logits, attention = self(batch)
        wanted, lengths = shares(labels), batch.lengths
        plain = F.cross_entropy(top_mean(logits, lengths, self.divisor), wanted)
        action = F.cross_entropy(weighted_mean(logits, attention, lengths), wanted)
        rest = F.cross_entropy(weighted_mean(logits, 1 - attention, lengths), torch.full_like(wanted, 1 / self.classes))
        return plain + self.attended * (action + rest) + self.small * attention.mean()

    def score(self, rows: Tensor) -> Scored:
        logits, attention = self(Packed.of([rows]))
        video = top_mean(logits * attention, [len(rows)], self.divisor)[0].softmax(0)
        return Scored(logits.clamp(min=0.0) * (1 + attention), video, attention[:, 0])
