"""What is known of extracted features: the settings of a folder, and an entry for each finished video.

``manifest.json`` holds what all videos share, so that a folder never mixes features of different making;
``manifest/<video>.json`` is written last of a video's files and says that they are complete. Neither holds a time or
a place: the same videos and settings give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wtal.errors import WtalError
from wtal.features.targets import Target
from wtal.files import write_atomically

SETTINGS = "manifest.json"
ENTRIES = "manifest"


def sha256(path: Path) -> str:
    """Hash of a file, as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def claim(root: Path, settings: Mapping[str, Any]) -> None:
    """Make ``root`` the folder of features with these settings.

    Raises:
        WtalError: it has features with other settings, or cannot be written.
    """
    path = root / SETTINGS
    wanted = json.loads(json.dumps(settings))
    if path.exists():
        found = _read(path)
        if found is None:
            raise WtalError(f"{path}: damaged, expected the settings of the features beside it; move them away")
        for key in [*wanted, *found]:
            if found.get(key) != wanted.get(key):
                raise WtalError(
                    f"{root}: has features made with {key} {json.dumps(found.get(key))}, "
                    f"now {json.dumps(wanted.get(key))}; expected the same settings, or another --out"
                )
    else:
        write_atomically(path, dump(wanted))


def dump(content: Mapping[str, Any]) -> bytes:
    """JSON as it is written: for people too, and always the same bytes."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def entry_path(root: Path, target: Target) -> Path:
    """The entry of one video."""
    return root / ENTRIES / f"{target.id}.json"


def is_complete(root: Path, target: Target, verify: bool) -> bool:
    """Whether a video's features are there, whole, and of this source file.

    Args:
        root: the folder of features.
        target: the video.
        verify: compare the hashes of source and features too, not only the sizes.
    """
    entry = _read(entry_path(root, target))
    try:
        if entry is None or entry["source"]["bytes"] != target.source.stat().st_size:
            return False
        for name, facts in entry["files"].items():
            path = root / name
            if path.stat().st_size != facts["bytes"] or (verify and sha256(path) != facts["sha256"]):
                return False
        return not verify or sha256(target.source) == entry["source"]["sha256"]
    except (OSError, KeyError, TypeError, AttributeError):
        return False


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
