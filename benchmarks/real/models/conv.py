"""One convolution: what any other model must beat."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..packed import Packed, PackedConv, shares, top_mean
from ..rules import Contrast, Rule
from .base import Baseline, Scored, Training


class Conv(Baseline):
    """Dropout and a convolution over three snippets, softmax over the classes of the pooled video."""

    training_settings = Training(epochs=10, learning_rate=1e-3)
    rule: Rule = Contrast()
    source = "a linear classifier under multiple-instance pooling"
    divisor = 8

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.drop = nn.Dropout(0.5)
        self.output = PackedConv(width, classes)

    def forward(self, batch: Packed) -> Tensor:
        """Logits ``[R, C]``."""
        return self.output(self.drop(batch.rows), batch.lengths)

    def loss(self, batch: Packed, labels: Tensor) -> Tensor:
        return F.cross_entropy(top_mean(self(batch), batch.lengths, self.divisor), shares(labels))

    def score(self, rows: Tensor) -> Scored:
        logits = self(Packed.of([rows]))
        return Scored(logits.clamp(min=0.0), top_mean(logits, [len(rows)], self.divisor)[0].softmax(0))
