"""``python -m benchmarks.real`` from the root of the checkout, on the wtal that is installed."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    # Behind everything else: the tree's own wtal/ has no kernels unless it is installed in place.
    sys.path[:] = [*(entry for entry in sys.path if Path(entry).resolve() != root), str(root)]
    from benchmarks.real.run import main

    sys.exit(main())
