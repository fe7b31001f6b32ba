"""A video's features into its files, whole or not at all, and the entry that says so last."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wtal.data.catalog import named
from wtal.data.npy import load_npy
from wtal.errors import WtalError
from wtal.features.manifest import dump, entry_path
from wtal.features.options import Stream
from wtal.features.targets import Target, layout_annotations
from wtal.files import write_atomically


def write_features(
    root: Path, target: Target, features: Mapping[Stream, np.ndarray], dtype: str, facts: Mapping[str, Any]
) -> None:
    """Write one video's features, and its entry in the manifest.

    Args:
        root: the folder of features.
        target: where they go; one I3D file takes RGB and flow side by side.
        features: ``[T, D]`` float32 a stream.
        dtype: ``"float32"`` or ``"float16"``, of the files.
        facts: what the entry tells beside the files.

    Raises:
        WtalError: the features are not finite in that type, or a file cannot be written.
    """
    streams = [features[stream] for stream in ("rgb", "flow") if stream in features]
    if len(target.i3d) == 1:
        streams = [np.concatenate(streams, axis=1)]
    arrays = dict(zip(target.i3d, streams, strict=True))
    if "clip" in features:
        arrays[target.clip] = features["clip"]
    files = {}
    for path, array in arrays.items():
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(array.astype(dtype))
        if not np.isfinite(stored).all():
            raise WtalError(f"its features for {path.name} are not finite as {dtype}; are these the right weights?")
        data = npy_bytes(stored)
        remove_leftovers(path)
        write_atomically(path, data)
        files[path.relative_to(root).as_posix()] = {
            "shape": list(stored.shape),
            "dtype": dtype,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    path = entry_path(root, target)
    remove_leftovers(path)
    write_atomically(path, dump({**facts, "files": files}))


def npy_bytes(array: np.ndarray) -> bytes:
    """A ``.npy`` file in memory."""
    data = io.BytesIO()
    np.save(data, array, allow_pickle=False)
    return data.getvalue()


def remove_leftovers(path: Path, older_than: float = 0.0) -> None:
    """Remove what a killed process left half written beside ``path``.

    Args:
        path: the file.
        older_than: seconds; 0 where nobody else writes this file.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime >= older_than:
                leftover.unlink()


def write_joint(root: Path, dataset: str) -> tuple[Path, int]:
    """W-TALC's one file with the I3D features of all annotated videos, in the annotations' order.

    Returns:
        Its path, and how many videos lack features; the file is written only where none does.
    """
    known = named(dataset)
    path = root / f"{known.prefix}-I3D-JOINTFeatures.npy"
    ids = list(layout_annotations(root, "wtalc", known).videos)
    parts = [root / "i3d" / f"{id}.npy" for id in ids]
    missing = sum(not part.is_file() for part in parts)
    if not missing:
        joint = np.empty(len(parts), dtype=object)
        for row, part in enumerate(parts):
            joint[row] = load_npy(part)
        data = io.BytesIO()
        np.save(data, joint, allow_pickle=True)
        remove_leftovers(path)
        write_atomically(path, data.getvalue())
    return path, missing
