"""The models by the name that ``--models`` takes."""

from __future__ import annotations

from .base import Baseline, Scored
from .cola import Cola
from .conv import Conv
from .foreground import Foreground
from .mlp import TwoLayers

MODELS: dict[str, type[Baseline]] = {"conv": Conv, "mlp": TwoLayers, "cola": Cola, "foreground": Foreground}

__all__ = ["MODELS", "Baseline", "Cola", "Conv", "Foreground", "Scored", "TwoLayers"]
