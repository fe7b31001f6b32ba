"""Designs of which it is known how they differ on real features: does another data set put them in the same order?

A design is a network, its loss, and how its logits become scores of proposals. One training serves all readouts of a
network. They span what decides on real features: how far a snippet sees, softmax or sigmoid, which scores the
proposals are scored by, and background that is suppressed or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from wtal.data.predictions import Detection
from wtal.data.timebase import Timebase
from wtal.inference.localize import detect, scale_scores, to_seconds
from wtal.models.cbp import CBP
from wtal.models.mil import video_logits
from wtal.settings.config import CBPConfig, LocalizeConfig
from wtal.settings.recipe import load_recipe
from wtal.training.losses import step_loss

from .models import Cola, Conv, Foreground, Scored, TwoLayers
from .models.base import Baseline, Training
from .packed import Packed, top_mean
from .rules import Rule

LOCALIZE = LocalizeConfig(
    theta_cls=0.2,
    theta_loc=tuple(k / 10 for k in range(1, 10)),
    score="oic",
    nms="gaussian",
    sigma=0.3,
    min_score=0.001,
    max_detections=100,
)
"""Of every design but those with a rule of their own."""

RECIPE = load_recipe("thumos14").config


@dataclass(frozen=True)
class Plain(Rule):
    """:func:`wtal.inference.localize.detect`, nothing interpolated."""

    config: LocalizeConfig

    def __call__(self, scored: Scored, timebase: Timebase, classes: Sequence[str]) -> list[Detection]:
        lengths = torch.tensor([len(scored.frames)])
        found = detect(scored.frames[None].contiguous(), scored.video[None], lengths, self.config)
        return to_seconds(found, [timebase], classes)[0]


TRIAL = Training(epochs=20, learning_rate=1e-3, crop=1000)
"""Of the designs after the first trial on real features."""


class SoftmaxConv(Conv):
    """One convolution; softmax over classes."""

    training_settings = TRIAL


class SoftmaxTwoLayers(TwoLayers):
    """Two layers; softmax over classes."""

    training_settings = TRIAL


class SigmoidLoss(Baseline):
    """Mixed in before a model with pooled logits: each class is a sigmoid of its own."""

    divisor: int

    def loss(self, batch: Packed, labels: Tensor) -> Tensor:
        return binary(top_mean(self(batch), batch.lengths, self.divisor), labels)


class SigmoidConv(SigmoidLoss, SoftmaxConv):
    """One convolution; each class is a sigmoid of its own."""


class SigmoidTwoLayers(SigmoidLoss, SoftmaxTwoLayers):
    """Two layers; each class is a sigmoid of its own."""


def binary(pooled: Tensor, labels: Tensor) -> Tensor:
    """Half the sum over classes of the binary cross-entropy, averaged over videos."""
    return F.binary_cross_entropy_with_logits(pooled, labels, reduction="none").sum(1).mean() / 2


class Branch(Baseline):
    """CBP, of one form, in the loop of the others."""

    training_settings = Training(epochs=14, learning_rate=1e-3, crop=400)
    form: CBPConfig
    contrast = 0.0

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.net = CBP(width, classes, self.form)

    def forward(self, batch: Packed) -> Tensor:
        """Logits ``[R, C]``."""
        return torch.cat([self.net(one[None], torch.tensor([len(one)]))[0] for one in _videos(batch)])

    def loss(self, batch: Packed, labels: Tensor) -> Tensor:
        lengths = torch.tensor(batch.lengths)
        padded = torch.nn.utils.rnn.pad_sequence(_videos(batch), batch_first=True)
        outputs = self.net.outputs(padded, lengths, embedding=self.contrast > 0)
        weights = replace(RECIPE.loss, contrast=self.contrast)
        return step_loss(outputs, lengths, labels, weights, softmax=self.form.activation == "softmax")["total"].mean()


def _videos(batch: Packed) -> list[Tensor]:
    return list(batch.rows.split([*batch.lengths]))


def _branch(title: str, form: CBPConfig, contrast: float = 0.0) -> type[Branch]:
    return type(title, (Branch,), {"form": form, "contrast": contrast, "__doc__": title})


_DEEP = CBPConfig(dim=128, heads=4, levels=3, mlp_ratio=2.0, input_dropout=0.3, dropout=0.1, output_bias=0.0)
_NEAR = replace(_DEEP, levels=1, window=2)

NETWORKS: dict[str, type[Baseline]] = {
    "conv softmax": SoftmaxConv,
    "conv sigmoid": SigmoidConv,
    "two layers softmax": SoftmaxTwoLayers,
    "two layers sigmoid": SigmoidTwoLayers,
    "foreground": Foreground,
    "cola": Cola,
    "cbp whole video softmax": _branch("CBPWholeSoftmax", replace(_DEEP, activation="softmax")),
    "cbp whole video sigmoid": _branch("CBPWholeSigmoid", _DEEP),
    "cbp window softmax": _branch("CBPWindowSoftmax", replace(_NEAR, activation="softmax")),
    "cbp window sigmoid": _branch("CBPWindowSigmoid", _NEAR),
    "cbp recipe": _branch("CBPRecipe", RECIPE.cbp, RECIPE.loss.contrast),
}
"""What is trained."""

Readout = Callable[[Tensor], Tensor]


def raw(logits: Tensor) -> Tensor:
    """Logits scaled to [0, 1] per class."""
    return scale_scores(logits[None], torch.tensor([len(logits)]))[0]


@dataclass(frozen=True)
class Design:
    """A network by name, and how its logits are read; None where it has a way of its own."""

    network: str
    readout: Readout | None = None
    score: str = "oic"


DESIGNS: dict[str, Design] = {
    "conv, softmax": Design("conv softmax", raw),
    "conv, softmax, max": Design("conv softmax", raw, "max"),
    "conv, softmax, read by sigmoid": Design("conv softmax", torch.sigmoid),
    "conv, sigmoid": Design("conv sigmoid", torch.sigmoid),
    "two layers, softmax": Design("two layers softmax", raw),
    "two layers, softmax, max": Design("two layers softmax", raw, "max"),
    "two layers, softmax, read by sigmoid": Design("two layers softmax", torch.sigmoid),
    "two layers, sigmoid": Design("two layers sigmoid", torch.sigmoid),
    "two layers, sigmoid, max": Design("two layers sigmoid", torch.sigmoid, "max"),
    "foreground attention": Design("foreground"),
    "contrast after CoLA": Design("cola"),
    "CBP, whole video, softmax": Design("cbp whole video softmax", raw),
    "CBP, whole video, sigmoid": Design("cbp whole video sigmoid", torch.sigmoid),
    "CBP, whole video, sigmoid, max": Design("cbp whole video sigmoid", torch.sigmoid, "max"),
    "CBP, window, softmax": Design("cbp window softmax", raw),
    "CBP, window, sigmoid": Design("cbp window sigmoid", torch.sigmoid),
    "CBP, the recipe": Design("cbp recipe", lambda logits: logits.clamp(min=0.0)),
}
"""The order of these is compared. Rules of localisation: the recipe's own for CBP's last, the models' own where no
readout is named, else :data:`LOCALIZE`."""


@torch.inference_mode()
def detections(
    design: Design, model: Baseline, rows: Tensor, timebase: Timebase, classes: Sequence[str]
) -> list[Detection]:
    """What a design finds in one video ``[T, D]``."""
    if design.readout is None:
        return model.rule(model.score(rows), timebase, classes)
    logits = model(Packed.of([rows]))
    softmax = "sigmoid" not in design.network
    pooled = video_logits(logits[None], torch.tensor([len(rows)]), RECIPE.loss.topk_divisor)[0]
    video = pooled.softmax(0) if softmax else pooled.sigmoid()
    config = RECIPE.localize if design.network == "cbp recipe" else replace(LOCALIZE, score=design.score)
    return Plain(config)(Scored(design.readout(logits), video), timebase, classes)


__all__ = ["DESIGNS", "NETWORKS", "Design", "detections"]
