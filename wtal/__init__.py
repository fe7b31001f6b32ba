"""Weakly-supervised temporal action localization on C++/CUDA kernels.

Importing this package is cheap: torch and the kernels load with the first name that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wtal.errors import WtalError

if TYPE_CHECKING:
    from wtal.evaluate import Evaluation, evaluate

__version__ = "0.1.0"
__all__ = ["Evaluation", "WtalError", "__version__", "evaluate"]

_LAZY = {"evaluate": "wtal.evaluate", "Evaluation": "wtal.evaluate"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'wtal' has no attribute {name!r}")
