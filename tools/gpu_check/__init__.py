"""The plan of tools/gpu_check.sh: what a GPU is asked, in which order, and how the answers are kept."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The source tree."""
