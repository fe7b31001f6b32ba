"""Reads the text features that a data set may bring instead of class names for CLIP."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wtal.data.npy import load_npy
from wtal.errors import WtalError


def read_text_features(path: Path, num_classes: int) -> np.ndarray:
    """The text features in a data set, one row per class in class order: ``[C, D']`` float32, unit norm."""
    rows = load_npy(path)
    if rows.ndim != 2 or rows.dtype.kind != "f" or len(rows) != num_classes:
        raise WtalError(f"{path}: {rows.dtype} of shape {list(rows.shape)}, expected floating point [{num_classes}, D]")
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise WtalError(f"{path}: a row is zero or not finite, expected one direction a class")
    return (rows / norms).astype(np.float32)
