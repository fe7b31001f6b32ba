"""The one loop that trains every model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .models.base import Baseline, Training
from .packed import Packed


def train(
    kind: type[Baseline],
    features: Sequence[Tensor],
    labels: Tensor,
    seed: int,
    settings: Training | None = None,
    told: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Baseline:
    """Train a model; the result is in eval mode.

    Args:
        kind: its class.
        features: ``[T, D]`` of each training video, standardised where the settings ask for it.
        labels: ``[V, C]`` of zeros and ones: all that training sees of what happens in the videos.
        seed: of weights, order, crops and dropout.
        settings: None for the model's own.
        told: called after each epoch with its number and mean loss.
    """
    settings = settings or kind.training_settings
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    model = kind(features[0].shape[1], labels.shape[1])
    adam = torch.optim.Adam(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    batches = max(1, round(len(features) / settings.batch))
    model.train()
    for epoch in range(1, settings.epochs + 1):
        total = 0.0
        for batch in np.array_split(random.permutation(len(features)), batches):
            loss = model.loss(Packed.of([_crop(features[i], settings.crop, random) for i in batch]), labels[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()
            total += loss.item() * len(batch)
        told(epoch, total / len(features))
    return model.eval()


def _crop(rows: Tensor, most: int, random: np.random.Generator) -> Tensor:
    spare = len(rows) - most
    if not most or spare <= 0:
        return rows
    start = int(random.integers(spare + 1))
    return rows[start : start + most]
