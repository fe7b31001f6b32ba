"""The exponential moving average (EMA) of a branch's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from wtal.inference.branches import Branches

EMA = "moving average"
"""The name of the branch that holds the average. Where a stage has several, each has a mark before this name."""


class MovingAverage:
    """The EMA of one branch. It is a branch too, so that it can teach and is stored in checkpoints.

    Args:
        branches: the branches; a copy of ``source`` is added to them under ``name``.
        source: the name of the branch whose weights are averaged.
        name: the name of the average.
        decay: the share of its old value that the average keeps in each step.
    """

    def __init__(self, branches: Branches, source: str, name: str, decay: float) -> None:
        self._branches = branches
        self._source = source
        self._name = name
        self._decay = decay
        branches.copy(source, name)

    @torch.no_grad()
    def update(self) -> None:
        """Move the average one step towards the current weights."""
        averages = self._branches[self._name].parameters()
        for average, weight in zip(averages, self._branches[self._source].parameters(), strict=True):
            average.lerp_(weight, 1 - self._decay)

    def finish(self) -> None:
        """Give the averaged weights to the branch, and remove the average from the branches."""
        self._branches[self._source].load_state_dict(self._branches[self._name].state_dict())
        del self._branches[self._name]

    def restore(self, stored: Mapping[str, Tensor]) -> None:
        """Load the tensors of a checkpoint. It has only the learned ones, so the others keep their values."""
        ema = self._branches[self._name]
        ema.load_state_dict({**ema.state_dict(), **stored})
