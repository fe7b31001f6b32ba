"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import glob
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from wtal.errors import WtalError


class WriteError(WtalError):
    """A file could not be written: a full disk, a folder that is gone, no permission."""


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out before a long job whether its result can be written; makes the folder, leaves no file.

    Raises:
        WtalError: the path is a folder, or its folder cannot be made or written to.
    """
    path = Path(path)
    if path.is_dir():
        raise WtalError(f"{path}: is a folder, expected the name of a file to write")
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace the file at ``path`` by ``data``, as :func:`replacing` does."""
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that replaces the one at ``path``: temporary file beside it, fsync, rename. Makes the folder.

    Raises:
        WriteError: it cannot be written; what was there before is still there then.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, name: str | None = None, older_than: float = 0.0) -> None:
    """Remove what :func:`replacing` left in a folder when its process was killed in the middle.

    Args:
        folder: where to look.
        name: of the file that was being written; None for any.
        older_than: seconds; 0 where nobody else writes such files.
    """
    for temporary in folder.glob(".*.tmp" if name is None else f".{glob.escape(name)}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - temporary.stat().st_mtime >= older_than:
                temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; file systems that cannot sync a folder need no help."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
