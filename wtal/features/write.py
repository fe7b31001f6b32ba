"""Writing feature files: each is written whole or not at all.

A video's manifest entry is begun before its files, which marks them as ours, and completed after them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from wtal.data.catalog import named
from wtal.data.npy import load_npy
from wtal.errors import WtalError
from wtal.features.manifest import dump, entry_path
from wtal.features.options import Stream
from wtal.features.video_list import Target, layout_annotations
from wtal.platform.files import remove_temporaries, replacing, write_atomically


def write_features(
    root: Path, target: Target, features: Mapping[Stream, np.ndarray], dtype: str, facts: Mapping[str, Any]
) -> None:
    """Write one video's features, and its entry in the manifest: begun before them, complete after them.

    Args:
        root: the folder of features.
        target: the paths of the files. A single I3D file gets RGB and flow concatenated.
        features: float32 ``[T, D]`` for each stream.
        dtype: dtype of the files, ``"float32"`` or ``"float16"``.
        facts: further content of the entry.

    Raises:
        WtalError: the features are not finite in this dtype, or a file cannot be written.
    """
    streams = [features[stream] for stream in ("rgb", "flow") if stream in features]
    if len(target.i3d) == 1:
        streams = [np.concatenate(streams, axis=1)]
    arrays = dict(zip(target.i3d, streams, strict=True))
    if "clip" in features:
        arrays[target.clip] = features["clip"]
    files, contents = {}, {}
    for path, array in arrays.items():
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(array.astype(dtype))
        if not np.isfinite(stored).all():
            hint = "expected --dtype float32" if np.isfinite(array).all() else "are these the right weights?"
            raise WtalError(f"its features for {path.name} are not finite as {dtype}; {hint}")
        contents[path] = data = npy_bytes(stored)
        files[path.relative_to(root).as_posix()] = {
            "shape": list(stored.shape),
            "dtype": dtype,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    entry = entry_path(root, target)
    for path in (*contents, entry):
        remove_temporaries(path.parent, path.name)
    write_atomically(entry, dump({"video": target.id}))
    for path, data in contents.items():
        write_atomically(path, data)
    write_atomically(entry, dump({**facts, "files": files}))


def npy_bytes(array: np.ndarray) -> bytes:
    """The content of a ``.npy`` file."""
    data = io.BytesIO()
    np.save(data, array, allow_pickle=False)
    return data.getvalue()


def joint_path(root: Path, dataset: str) -> Path:
    """W-TALC's single file with the I3D features of all videos."""
    return root / f"{named(dataset).prefix}-I3D-JOINTFeatures.npy"


def write_joint(root: Path, dataset: str, older_than: float = 0.0) -> tuple[Path, int]:
    """Write W-TALC's single file with the I3D features of all annotated videos, in the order of the annotations.

    It is written only if every video has features, and only if its content changes.

    Args:
        root: the folder of features.
        dataset: the name of the data set.
        older_than: age in seconds from which temporary files are removed. 0: all, if no other process writes now.

    Returns:
        The path of the file, and the number of videos without features.
    """
    path = joint_path(root, dataset)
    ids = list(layout_annotations(root, "wtalc", named(dataset)).videos)
    parts = [root / "i3d" / f"{id}.npy" for id in ids]
    missing = sum(not part.is_file() for part in parts)
    remove_temporaries(root, path.name, older_than)
    if not missing:
        joint = np.empty(len(parts), dtype=object)
        for row, part in enumerate(parts):
            joint[row] = load_npy(part)
        if not _holds(path, joint):
            with replacing(path) as file:
                np.save(file, joint, allow_pickle=True)
    return path, missing


def _holds(path: Path, array: np.ndarray) -> bool:
    try:
        with path.open("rb") as file:
            comparison = _Comparison(file)
            np.save(cast(BinaryIO, comparison), array, allow_pickle=True)
            return comparison.same and not file.read(1)
    except FileNotFoundError:
        return False


class _Comparison:
    """A file object that compares what is written with the content of an existing file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.same = True

    def write(self, data: bytes) -> int:
        """Compare ``data`` with the next bytes of the file."""
        self.same = self.same and self._file.read(len(data)) == data
        return len(data)
