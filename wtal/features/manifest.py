"""The manifest of extracted features: the settings of a folder, and one entry per finished video.

``manifest.json`` has the settings that all videos share, so that a folder never mixes features with different settings.
``manifest/<video>.json`` is completed after a video's feature files; an entry that is only begun, without ``files``,
says that files of this video, whole or not there, are from wtal-extract. The manifest has no
dates and no absolute paths: the same videos and settings give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wtal.errors import WtalError
from wtal.features.video_list import Target
from wtal.platform.files import WriteError, write_atomically
from wtal.platform.folders import visible

SETTINGS = "manifest.json"
ENTRIES = "manifest"


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_settings(root: Path, settings: Mapping[str, Any]) -> None:
    """Check that the features in ``root`` have these settings. A folder without features passes.

    Raises:
        WtalError: ``root`` has features with other settings, or its ``manifest.json`` is missing or damaged.
    """
    path = root / SETTINGS
    entries = root / ENTRIES
    if not (entries.is_dir() and any(path.suffix == ".json" for path in visible(entries))):
        return
    stored = _read(path)
    if stored is None:
        what = "damaged" if path.exists() else "missing"
        raise WtalError(f"{path}: {what}, expected the settings of the features beside it; move them away")
    existing, wanted = _flat(stored), _flat(json.loads(json.dumps(settings)))
    for key in [*wanted, *existing]:
        if existing.get(key) != wanted.get(key):
            raise WtalError(
                f"{root}: has features made with {key} {_short(existing.get(key))}, "
                f"now {_short(wanted.get(key))}; expected the same settings, or another --out"
            )


def claim(root: Path, settings: Mapping[str, Any]) -> None:
    """Write ``manifest.json``, so that ``root`` becomes the folder of features with these settings.

    Raises:
        WtalError: ``root`` has features with other settings (:func:`check_settings`), or it cannot be written.
    """
    check_settings(root, settings)
    data = dump(settings)
    path = root / SETTINGS
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)


def hash_of(settings: Mapping[str, Any]) -> str:
    """A short hash of the settings, which the entry of each video stores."""
    return hashlib.sha256(dump(settings)).hexdigest()[:16]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without nesting: the key ``rgb`` inside ``weights`` becomes ``weights of rgb``."""
    flat = {}
    for key, value in settings.items():
        flat.update(
            {f"{key} of {part}": one for part, one in value.items()} if isinstance(value, dict) else {key: value}
        )
    return flat


def _short(value: Any) -> str:
    """A value as text for messages; a hash is shortened to its first digits."""
    whole = isinstance(value, str) and len(value) == 64
    return json.dumps(f"{value[:12]}..." if whole else value, ensure_ascii=False)


def dump(content: Mapping[str, Any]) -> bytes:
    """The content as indented JSON; equal content gives equal bytes."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def entry_path(root: Path, target: Target) -> Path:
    """The path of the entry of one video."""
    return root / ENTRIES / f"{target.id}.json"


def is_complete(root: Path, target: Target, clip: bool, settings: str, verify: bool) -> bool:
    """Whether a video's features exist, are complete, and were extracted from this source file with these settings.

    Args:
        root: the folder of features.
        target: the video.
        clip: whether CLIP features are expected.
        settings: :func:`hash_of` the settings.
        verify: also compare the hashes of source and features; otherwise only the sizes are compared.
    """
    entry = _read(entry_path(root, target))
    try:
        if entry is None or entry["settings"] != settings or entry["source"]["bytes"] != target.source.stat().st_size:
            return False
        if set(entry["files"]) != {path.relative_to(root).as_posix() for path in target.files(clip)}:
            return False
        if target.rows is not None and entry["grid"]["rows"] != target.rows:
            return False
        for name, facts in entry["files"].items():
            path = root / name
            if path.stat().st_size != facts["bytes"] or (verify and sha256(path) != facts["sha256"]):
                return False
        return not verify or sha256(target.source) == entry["source"]["sha256"]
    except (OSError, KeyError, TypeError, AttributeError):
        return False


def check_own(root: Path, targets: Iterable[Target], clip: bool, joint: Path | None = None) -> None:
    """Check that no file that is to be written was put there by somebody else: it would be lost.

    Args:
        root: the folder of features.
        targets: the videos to extract.
        clip: whether CLIP features are to be extracted.
        joint: a file of all videos that is to be written too. It has no entry of its own, so it is taken for ours in a
            folder with a ``manifest.json``.

    Raises:
        WtalError: a target has a file, but no entry, or ``joint`` is there.
    """
    new = [target for target in targets if not entry_path(root, target).exists()]
    found = [path for target in new for path in target.files(clip) if path.exists()]
    if joint is not None and joint.exists() and not (root / SETTINGS).exists():
        found.insert(0, joint)
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        i3d = joint in found or any(path in target.i3d for target in new for path in found)
        advice = "; --modality none adds CLIP features to I3D features that you have" if i3d else ""
        raise WtalError(
            f"{found[0]}{more}: there already, and not from wtal-extract; move it away, or choose another --out{advice}"
        )


def forget(root: Path, target: Target) -> None:
    """Remove the features of a video, and last its entry. Files without an entry stay.

    Raises:
        WriteError: a file cannot be removed.
    """
    entry = entry_path(root, target)
    if not entry.exists():  # without an entry, the files are not from wtal-extract
        return
    for path in (*target.files(clip=True), entry):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(f"{path}: cannot be removed ({error.strerror})") from None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
