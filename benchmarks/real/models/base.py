"""What the loop and the evaluator ask of a model."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from ..packed import Packed
from ..rules import Rule


@dataclass(frozen=True)
class Training:
    """What differs between models in the one loop that trains them all (Adam, shuffled videos, random crops)."""

    epochs: int
    learning_rate: float
    weight_decay: float = 5e-4
    batch: int = 16
    """Videos."""
    crop: int = 200
    """At most so many consecutive snippets of a video, from a random place; 0 takes all of it."""
    standardise: bool = True
    """Features less the training snippets' mean, divided by their deviation."""


@dataclass(frozen=True)
class Scored:
    """What a model says of one video.

    Attributes:
        frames: ``[T, C]``, not negative: what localisation thresholds and the snippet rates look at, scaled to [0, 1]
            per class. A logit below zero speaks against its class and counts as zero, as in BaSNet and CoLA.
        video: probabilities ``[C]``.
        actionness: ``[T]``, how much a snippet looks like any action, where the model says so.
    """

    frames: Tensor
    video: Tensor
    actionness: Tensor | None = None


class Baseline(nn.Module):
    """A model with its published loss, its settings and its localisation rule."""

    training_settings: Training
    rule: Rule
    source: str
    """Where it comes from, for the table."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.width, self.classes = width, classes

    @classmethod
    def constants(cls) -> dict[str, float]:
        """The numbers of the model itself, by name."""
        every = {name: value for one in reversed(cls.__mro__) for name, value in vars(one).items()}
        return {name: value for name, value in every.items() if type(value) in (int, float) and name[0] != "_"}

    @abstractmethod
    def loss(self, batch: Packed, labels: Tensor) -> Tensor:
        """The loss of a batch, ``labels`` ``[B, C]`` of zeros and ones."""

    @abstractmethod
    def score(self, rows: Tensor) -> Scored:
        """Scores of one whole video ``[T, D]``."""
