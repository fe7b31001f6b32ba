"""Baselines on real features: ``python -m benchmarks.real --data DIR/dataset.toml``, see :mod:`benchmarks.real.run`.

The commands of this package run from the root of the checkout, on the wtal that is installed.
"""

import sys
from pathlib import Path

if sys.argv[0] == "-m":  # so it is while python -m looks for the module
    # Behind everything else: the tree's own wtal/ has no kernels unless it is installed in place.
    root = Path(__file__).resolve().parents[2]
    sys.path[:] = [*(entry for entry in sys.path if Path(entry).resolve() != root), str(root)]
