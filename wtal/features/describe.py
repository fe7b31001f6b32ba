"""The ``dataset.toml`` beside extracted features, and the labels that it needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from wtal.data.own_files import read_labels
from wtal.data.timebase import Timebase
from wtal.errors import WtalError
from wtal.features.targets import CLIP_FOLDER, I3D_FOLDER
from wtal.files import write_atomically

_MARK = "# Written by wtal-extract ({digest}). Change it as you like: it is then left alone.\n"


def place_labels(root: Path, labels: Path | None, ids: Iterable[str]) -> Path:
    """The file of video-level labels in ``root``: a copy of ``labels``, what is there, or a form to fill in.

    Raises:
        WtalError: ``labels`` cannot be read as such.
    """
    if labels is not None:
        read_labels(labels)
        place = root / f"labels{'.json' if labels.suffix == '.json' else '.csv'}"
        data = labels.read_bytes()
        if not place.exists() or place.read_bytes() != data:
            write_atomically(place, data)
        return place
    for place in (root / "labels.json", root / "labels.csv"):
        if place.exists():
            return place
    if bad := [id for id in ids if "," in id or '"' in id]:
        raise WtalError(f"video {bad[0]!r}: its name does not go into a CSV file; expected --labels FILE.json")
    write_atomically(place, ("video,label\n" + "".join(f"{id},\n" for id in ids)).encode())
    return place


def write_description(
    root: Path, name: str, labels: Path, timebase: Timebase, clip: bool, clip_fps: float | None
) -> tuple[tuple[str, ...], bool]:
    """Write ``dataset.toml`` (see docs/own_data.md), unless somebody changed the one that is there.

    Returns:
        The classes, all labels in alphabetical order, and whether the file is left as somebody changed it.
    """
    found = [label for _, _, names in read_labels(labels) for label in names]
    if bad := [label for label in found if not isinstance(label, str) or not label]:
        raise WtalError(f"{labels}: label {bad[0]!r}, expected text")
    classes = tuple(sorted(set(found)))
    lines = [
        f"name = {_text(name)}",
        f"classes = [{', '.join(map(_text, classes))}]",
        f"i3d = {_text(I3D_FOLDER)}",
        *([f"clip = {_text(CLIP_FOLDER)}"] if clip else []),
        *([f"clip_fps = {clip_fps!r}"] if clip and clip_fps is not None else []),
        f"labels = {_text(labels.name)}",
        f"fps = {timebase.fps:g}",
        f"stride = {timebase.stride:g}",
        f"window = {timebase.window:g}",
    ]
    body = "".join(f"{line}\n" for line in lines)
    path = root / "dataset.toml"
    if path.exists() and not _untouched(path):
        return classes, True
    data = (_mark(body) + body).encode()
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)
    return classes, False


def _mark(body: str) -> str:
    return _MARK.format(digest=hashlib.sha256(body.encode()).hexdigest()[:12])


def _untouched(path: Path) -> bool:
    first, _, body = path.read_text(encoding="utf-8", errors="replace").partition("\n")
    return f"{first}\n" == _mark(body)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
