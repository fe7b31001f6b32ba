"""Weakly-supervised temporal action localization on C++/CUDA kernels.

Importing this package is cheap: torch and the kernels load with the first call that needs them.
"""

from __future__ import annotations

from wtal.errors import WtalError

# Not lazily: the function has the name of its module, and whoever imports the module last would win.
from wtal.evaluate import Evaluation, evaluate

__version__ = "0.1.0"
__all__ = ["Evaluation", "WtalError", "__version__", "evaluate"]
