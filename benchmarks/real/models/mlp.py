"""Two layers: a convolution over three snippets and a classifier of each snippet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..packed import Packed, PackedConv
from ..rules import Contrast, Rule
from .base import Training
from .conv import Conv


class TwoLayers(Conv):
    """Convolution, ReLU, dropout, classifier; otherwise as :class:`Conv`."""

    training_settings = Training(epochs=14, learning_rate=1e-3)
    rule: Rule = Contrast()
    source = "W-TALC's and BaSNet's plain form"
    hidden = 256

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.embed = PackedConv(width, self.hidden)
        self.drop = nn.Dropout(0.7)
        self.output = nn.Linear(self.hidden, classes)

    def forward(self, batch: Packed) -> Tensor:
        """Logits ``[R, C]``."""
        return self.output(self.drop(torch.relu(self.embed(batch.rows, batch.lengths))))
