"""Weakly-supervised temporal action localization on C++/CUDA kernels.

::

    model = wtal.load("runs/x")
    detections = model.detect(features, fps=25, stride=16, window=16)  # wtal.Detection(start, end, label, score)
    wtal.evaluate(predictions, ground_truth, protocol="seconds")

For your own training code there are also :mod:`wtal.ops`, the kernels, and :mod:`wtal.models`, the branches. The import
of this package is fast: torch and the kernels are loaded with the first name that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wtal.about import VERSION as __version__
from wtal.data.predictions import Detection
from wtal.errors import WtalError
from wtal.evaluation.average_precision import Evaluation, evaluate

if TYPE_CHECKING:
    from wtal import models, ops
    from wtal.api import Model, Scores, load

__all__ = [
    "Detection",
    "Evaluation",
    "Model",
    "Scores",
    "WtalError",
    "__version__",
    "evaluate",
    "load",
    "models",
    "ops",
]

_LAZY = {"load": "wtal.api", "Model": "wtal.api", "Scores": "wtal.api", "models": "wtal.models", "ops": "wtal.ops"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'wtal' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_LAZY[name])
    value = module if name in ("models", "ops") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
