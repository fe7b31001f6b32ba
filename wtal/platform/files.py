"""Writing files so that a reader never sees half of one."""

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


class WriteError(WtalError):
    """A file could not be written: a full disk, a folder that is gone, no permission."""

    errno: int | None = None

    @classmethod
    def of(cls, path: str | os.PathLike[str], error: OSError) -> WriteError:
        """The error that says so of a path."""
        made = cls(f"{path}: cannot be written ({error.strerror or error})")
        made.errno = error.errno
        return made


def no_room(error: OSError | WriteError) -> bool:
    """Whether there was no room left, on the disk or in the user's share of it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


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
        raise WriteError.of(path, error) from None
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
        raise WriteError.of(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, whatever it is called: 8 bytes of length, and as much JSON."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return False
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= size - 8


def is_temporary(path: Path) -> bool:
    """Whether this is what :func:`replacing` leaves when its process is killed in the middle."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def remove_temporaries(folder: Path, name: str | None = None, older_than: float = 0.0) -> None:
    """Remove the temporary files (:func:`is_temporary`) of a folder.

    Args:
        folder: where to look.
        name: name of the file that was being written; None for any.
        older_than: seconds; 0 where nobody else writes such files.
    """
    for temporary in filter(is_temporary, folder.glob(".*")):
        if name is not None and not temporary.name.startswith(f".{name}."):
            continue
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
    # Not the process id: several machines may write into one folder.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
