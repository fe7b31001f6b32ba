"""The cache between runs: its folder, and the conversion of one big pickled file into one file per video."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wtal.data.npy import stream_npy
from wtal.errors import WtalError
from wtal.platform.files import write_atomically
from wtal.platform.folders import visible

Progress = Callable[[int, int], None]
"""Called with (videos done, videos in all)."""


def cache_root() -> Path:
    """``$WTAL_CACHE``, else ``$XDG_CACHE_HOME/wtal``, else ``~/.cache/wtal``. This call does not create it."""
    if own := os.environ.get("WTAL_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return Path(shared if shared else Path.home() / ".cache") / "wtal"


def per_video_files(source: Path, count: int, progress: Progress | None = None) -> list[Path]:
    """One ``.npy`` file for each entry of a pickled object array, in its order; converted on the first call.

    The files are under :func:`cache_root` in a folder named after the source's SHA-256. A stamp with the source's
    path, size and modification time avoids reading the source again. A source that was only copied or touched is
    recognised by its hash. The folder gets its name when it is complete, and the stamp is written last.

    Args:
        source: object array of ``count`` arrays ``[T, D]``, such as W-TALC's ``*-I3D-JOINTFeatures.npy``.
        count: how many entries the annotations expect.
        progress: called after each video that was converted.

    Raises:
        WtalError: the source is malformed or has another count, or the cache cannot be written.
    """
    try:
        status = source.stat()
        facts = {"path": str(source.resolve()), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        stamps = cache_root() / "features" / "stamps"
        stamp = stamps / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.json"
        folder = _stamped(stamp, facts)
        if folder is None:
            digest = _sha256(source)
            folder = stamps.parent / digest[:32]
            if not folder.is_dir():
                _convert(source, folder, count, progress)
            write_atomically(stamp, json.dumps({**facts, "sha256": digest}).encode())
        # Numbered, not named after videos: the annotations define the names, and may change independently.
        files = [path for path in visible(folder) if path.suffix == ".npy"]
    except OSError as error:
        raise WtalError(
            f"{source}: cannot be converted into {cache_root()} ({error.strerror or error}); "
            "set WTAL_CACHE to a folder with room for it"
        ) from None
    if len(files) != count:
        raise WtalError(f"{source}: features of {len(files)} videos, expected {count}, one a name in videoname.npy")
    return files


def _stamped(stamp: Path, facts: dict[str, Any]) -> Path | None:
    """The complete folder that a stamp names, None if there is none."""
    try:
        recorded = json.loads(stamp.read_text(encoding="utf-8"))
        folder = stamp.parent.parent / recorded.pop("sha256")[:32]
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return folder if recorded == facts and folder.is_dir() else None


def _convert(source: Path, folder: Path, count: int, progress: Progress | None) -> None:
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir(parents=True)
    try:
        written = 0

        def store(features: np.ndarray) -> Path:
            nonlocal written
            path = partial / f"part{written}"
            with path.open("wb") as file:
                np.save(file, features.astype(np.float32, copy=False) if features.dtype == np.float64 else features)
            written += 1
            if progress is not None:
                progress(min(written, count), count)
            return path

        entries = stream_npy(source, store)
        placed: dict[Path, Path] = {}
        for row, path in enumerate(entries):
            if not isinstance(path, Path):
                raise WtalError(f"{source}: entry {row} is a {type(path).__name__}, expected an array [T, D]")
            target = partial / f"{row:06d}.npy"
            if path in placed:  # several videos share one array
                shutil.copyfile(placed[path], target)
            else:
                placed[path] = path.rename(target)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process has already written the same content
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
