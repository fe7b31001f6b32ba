"""Versions, and each op once on each device: wtal-train --version without what the command line needs."""

from __future__ import annotations

import sys

from wtal.about import print_version

if __name__ == "__main__":
    sys.exit(print_version())
