"""The ``dataset.toml`` beside extracted features, and the labels that it needs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from wtal.data.own_files import read_labels
from wtal.data.timebase import Timebase
from wtal.errors import WtalError
from wtal.features.video_list import CLIP_FOLDER, I3D_FOLDER
from wtal.platform.as_toml import toml_value
from wtal.platform.files import write_atomically

_MARK = "# Written by wtal-extract ({digest}). Change it as you like: it is then left alone.\n"

_COPY = "labels.sha256"
"""The file with the hash of the labels that were copied from ``--labels``, in the format of ``sha256sum``. If the
labels have another hash, the user has changed them."""


def place_labels(root: Path, labels: Path | None, ids: Iterable[str]) -> tuple[Path, bool]:
    """Make sure that ``root`` has a file of video-level labels.

    The file is a copy of ``labels``, the file that already exists, or a form that the user fills in.

    Args:
        root: the folder of features.
        labels: the value of ``--labels``.
        ids: ids of the videos, for the form.

    Returns:
        The path of the file, and whether ``labels`` was not copied because the user has changed the existing file.

    Raises:
        WtalError: ``labels`` is not a readable file of labels, or a video id does not fit into a CSV file.
    """
    if labels is not None:
        read_labels(labels)
        place = root / f"labels{'.json' if labels.suffix == '.json' else '.csv'}"
        data = labels.read_bytes()
        there = place.read_bytes() if place.exists() else None
        if there is None or there != data:
            if there is not None and not _copied(root, place.name, there) and not _is_form(place):
                return place, True
            write_atomically(place, data)
        if not place.samefile(labels) and not _copied(root, place.name, data):
            write_atomically(root / _COPY, _record(place.name, data))
        return place, False
    # If two labels were copied here in turn, the last one counts.
    for name in sorted(("labels.json", "labels.csv"), key=lambda name: name != _last_copied(root)):
        if (root / name).exists() and not _is_form(root / name):
            return root / name, False
    place = root / "labels.csv"
    names = list(ids)
    if bad := [id for id in names if "," in id or '"' in id]:
        raise WtalError(f"video {bad[0]!r}: its name does not go into a CSV file; expected --labels FILE.json")
    form = ("video,label\n" + "".join(f"{id},\n" for id in names)).encode()
    if not place.exists() or place.read_bytes() != form:
        write_atomically(place, form)
    return place, False


def _record(name: str, data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


def _last_copied(root: Path) -> str | None:
    """The name of the labels that were copied last from ``--labels``; None if none were."""
    record = root / _COPY
    return record.read_text(errors="replace").strip().rpartition("  ")[2] if record.exists() else None


def _copied(root: Path, name: str, data: bytes) -> bool:
    """Whether these labels were copied from ``--labels`` and have not been changed since."""
    record = root / _COPY
    return record.exists() and record.read_bytes() == _record(name, data)


def _is_form(place: Path) -> bool:
    """Whether the file is a form without any label yet. Such a file can be overwritten: it has no work of the user."""
    return place.suffix == ".csv" and not any(names for _, _, names in read_labels(place))


@dataclass(frozen=True)
class Coverage:
    """Comparison of labels and videos: videos without labels, and labelled ids without a video (``strangers``)."""

    unlabelled: list[str]
    strangers: list[str]


def coverage(labels: Path, ids: Collection[str]) -> Coverage:
    """Compare a file of labels with the ids of the videos."""
    labelled = {id for _, id, names in read_labels(labels) if names}
    return Coverage([id for id in ids if id not in labelled], sorted(labelled.difference(ids)))


def write_description(
    root: Path, name: str, labels: Path, timebase: Timebase, clip: bool, clip_fps: float | None
) -> bool:
    """Write ``dataset.toml`` (see docs/own_data.md). Its classes are all labels in alphabetical order.

    Nothing is written if there are no labels yet, or if the user has changed the existing file.

    Returns:
        Whether the file was not written because the user has changed it.

    Raises:
        WtalError: a label is not text.
    """
    all_labels = [label for _, _, names in read_labels(labels) for label in names]
    if bad := [label for label in all_labels if not isinstance(label, str) or not label]:
        raise WtalError(f"{labels}: label {bad[0]!r}, expected text")
    if not all_labels:
        return False
    lines = [
        f"name = {toml_value(name)}",
        f"classes = [{', '.join(map(toml_value, sorted(set(all_labels))))}]",
        f"i3d = {toml_value(I3D_FOLDER)}",
        *([f"clip = {toml_value(CLIP_FOLDER)}"] if clip else []),
        *([f"clip_fps = {_number(clip_fps)}"] if clip and clip_fps is not None else []),
        f"labels = {toml_value(labels.name)}",
        f"fps = {_number(timebase.fps)}",
        f"stride = {_number(timebase.stride)}",
        f"window = {_number(timebase.window)}",
    ]
    body = "".join(f"{line}\n" for line in lines)
    path = root / "dataset.toml"
    if path.exists() and not _untouched(path):
        return True
    data = (_mark(body) + body).encode()
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)
    return False


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _mark(body: str) -> str:
    return _MARK.format(digest=hashlib.sha256(body.encode()).hexdigest()[:12])


def _untouched(path: Path) -> bool:
    first, _, body = path.read_text(encoding="utf-8", errors="replace").partition("\n")
    return f"{first}\n" == _mark(body)
