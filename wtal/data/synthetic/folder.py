"""Creates generated folders atomically, and reuses a folder with the requested content."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wtal.errors import WtalError

DESCRIPTION = "wtal-synthetic.json"


def build_folder(
    directory: str | os.PathLike[str], description: Mapping[str, Any], fill: Callable[[Path], None]
) -> Path:
    """Make ``directory`` with the output of ``fill`` and ``wtal-synthetic.json``, unless it already exists.

    Everything is written into a hidden folder beside ``directory``, which is renamed to ``directory`` at the end.

    Args:
        directory: the folder to make; its parents are made too.
        description: all values that determine the content, as JSON values.
        fill: writes the content into the folder it is given.

    Returns:
        ``directory``.

    Raises:
        WtalError: ``directory`` has other content, or cannot be written.
    """
    directory = Path(directory)
    described: dict[str, Any] = json.loads(json.dumps(description))  # as it reads back: tuples are lists
    if _is_there(directory, described):
        return directory
    parent = directory.absolute().parent
    partial = parent / f".{directory.absolute().name}.{secrets.token_hex(4)}.partial"
    try:
        partial.mkdir(parents=True)
        try:
            fill(partial)
            (partial / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
            try:
                partial.rename(directory)
            except OSError:
                # Another process may have written the same content first.
                if not _is_there(directory, described):
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise WtalError(
            f"{directory}: cannot write generated features ({error.strerror or error}), "
            "expected a folder that can be made"
        ) from None
    return directory


def read_description(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a generated folder's ``wtal-synthetic.json``.

    Raises:
        WtalError: the file is missing or damaged.
    """
    path = Path(directory) / DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WtalError(f"{path}: no such file, expected a folder that wtal generated") from None
    except (OSError, ValueError) as error:
        raise WtalError(f"{path}: cannot be read ({error}), expected JSON that wtal wrote") from None
    if not isinstance(found, dict):
        raise WtalError(f"{path}: holds a {type(found).__name__}, expected JSON that wtal wrote")
    return found


def _is_there(directory: Path, wanted: dict[str, Any]) -> bool:
    """Whether the folder exists with the wanted content; an error if it has other content."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    if not (directory / DESCRIPTION).is_file():
        raise WtalError(f"{directory}: holds something that wtal did not generate, expected an empty or a new folder")
    found = read_description(directory)
    if found == wanted:
        return True
    key = next(key for key in [*wanted, *found] if found.get(key) != wanted.get(key))
    raise WtalError(
        f"{directory}: was generated with {_difference(key, found.get(key), wanted.get(key))}; "
        "choose another folder or delete this one"
    )


def _difference(name: str, found: Any, wanted: Any) -> str:
    """The first difference, e.g. ``parameters.i3d.noise 1.4, expected 1.5``."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        key = next(key for key in [*wanted, *found] if found.get(key) != wanted.get(key))
        return _difference(f"{name}.{key}", found.get(key), wanted.get(key))
    return f"{name} {found!r}, expected {wanted!r}"
