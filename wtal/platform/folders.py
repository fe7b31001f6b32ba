"""Lists the files of a folder: hidden files are left out, and links are followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def visible(folder: Path) -> list[Path]:
    """The sorted entries of a folder without hidden ones, such as the ``._name`` that macOS adds to a copied file."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def walk(folder: Path) -> Iterator[Path]:
    """Every visible file under a folder, sorted by path. Broken links are included.

    Links to folders are followed. Each folder is entered once, by the path with the fewest links, so loops end.

    Raises:
        OSError: a folder cannot be read.
    """
    yield from sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        linked: list[Path] = []
        while waiting:
            place = waiting.pop()
            status = place.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            for path in visible(place):
                if os.path.isdir(path):
                    (linked if path.is_symlink() else waiting).append(path)
                elif os.path.isfile(path) or not os.path.exists(path):
                    yield path
        waiting = sorted(linked, reverse=True)
