"""The lock of a run folder: one process at a time makes or trains a run."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from wtal.errors import WtalError

LOCK = ".lock"
"""The name of the lock file."""


def locked(folder: Path) -> IO[str]:
    """The open lock file of a folder; closing it releases the lock. On a file system without locks there is no lock.

    The lock also ends with this process, even if it is killed.

    Raises:
        WtalError: another process has the lock.
        OSError: the file cannot be opened.
    """
    file = (folder / LOCK).open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise WtalError(f"{folder}: another process is training this run") from None
    except OSError:
        pass
    return file
