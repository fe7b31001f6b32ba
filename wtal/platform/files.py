"""Writes files atomically, so that a reader never sees an incomplete one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from wtal.errors import WtalError
from wtal.platform.stdout import StdoutError


class WriteError(WtalError):
    """A file cannot be written, for example because the disk is full."""

    errno: int | None = None

    @classmethod
    def of(cls, path: str | os.PathLike[str], error: OSError) -> WriteError:
        """The error for a path, from the error of the operating system."""
        made = cls(f"{path}: cannot be written ({error.strerror or error})")
        made.errno = error.errno
        return made


def no_room(error: OSError | WriteError | StdoutError) -> bool:
    """Whether the disk, or the user's quota of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check before a long job that its result can be written. The folder is made, but no file is left.

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
        raise WriteError.of(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to the file at ``path``, atomically as :func:`replacing`."""
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces the one at ``path`` at the end: write, fsync, rename. The folder is made.

    Raises:
        WriteError: the file cannot be written. An older file is not changed then.
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
        raise WriteError.of(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_safetensors(path: Path) -> bool:
    """Whether a file has the start of a safetensors file, 8 bytes of length and JSON; its name does not count."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return False
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= size - 8


def is_temporary(path: Path) -> bool:
    """Whether a path has the name of a temporary file, which :func:`replacing` leaves if its process is killed."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def remove_temporaries(folder: Path, name: str | None = None, older_than: float = 0.0) -> None:
    """Remove the temporary files (:func:`is_temporary`) of a folder.

    Args:
        folder: the folder.
        name: the file that was written; None: any file.
        older_than: the smallest age in seconds. Use 0 only if no other process writes such files.
    """
    for temporary in filter(is_temporary, folder.glob(".*")):
        if name is not None and not temporary.name.startswith(f".{name}."):
            continue
        with contextlib.suppress(OSError):
            if time.time() - temporary.stat().st_mtime >= older_than:
                temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power failure. Errors are ignored: not every file system can sync a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _temporary(path: Path) -> Path:
    # Random and not the process id, because several machines may write to one folder.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
