"""Reads the files that describe a user's own videos. ``dataset_toml`` checks the class names and video ids in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wtal.data.video import Instance
from wtal.data.video_id import check_id
from wtal.errors import WtalError
from wtal.platform import fields
from wtal.platform.text import csv_rows

_SEGMENTS = '{"video": [{"segment": [start, end], "label": "..."}, ...]}'


def read_labels(path: Path) -> list[tuple[str, str, list[Any]]]:
    """Read a file of video-level labels: the position of each entry, the video's id, and its labels. Ids may repeat.

    Raises:
        WtalError: the file is not CSV or JSON of labels, has no video, or an id leads to another folder.
    """
    labels_of: list[tuple[str, str, list[Any]]] = []
    if path.suffix == ".json":
        content = fields.load_json(path, 'JSON such as {"video": ["label", ...]}')
        if not isinstance(content, dict):
            raise WtalError(f'{path}: {fields.shown(content)}, expected {{"video": ["label", ...], ...}}')
        for video_id, names in content.items():
            if not isinstance(names, list):
                raise WtalError(f"{path}: video {video_id!r}: {fields.shown(names)}, expected a list of labels")
            labels_of.append((f"video {video_id!r}", video_id, names))
    else:
        for line, (video_id, text) in csv_rows(path, ("video", "label"), "video,label", only=True):
            labels = [label.strip() for label in text.split(";") if label.strip()]
            labels_of.append((f"line {line}", video_id, labels))
    if not labels_of:
        raise WtalError(f"{path}: no video, expected some")
    for _, video_id, _ in labels_of:
        check_id(video_id, path)
    return labels_of


def read_segments(path: Path) -> dict[str, list[tuple[str, Instance]]]:
    """Read a file of temporal annotation: for each video, its instances and the position of each in the file.

    Raises:
        WtalError: the file is not CSV or JSON of segments in seconds, or an id leads to another folder.
    """
    segments: dict[str, list[tuple[str, Instance]]] = {}
    if path.suffix == ".json":
        content = fields.load_json(path, f"JSON such as {_SEGMENTS}")
        if not is_segments(content):
            raise WtalError(f"{path}: {fields.shown(content)}, expected {_SEGMENTS}")
        for video_id, rows in content.items():
            where = f"video {video_id!r}"
            segments[video_id] = []
            for row in rows:
                try:
                    segment = fields.take(row, "segment", "[start, end] in seconds")
                    label = fields.take(row, "label", "a class name")
                except ValueError as error:
                    raise WtalError(f"{path}: {where}: {error}") from None
                segments[video_id].append((where, _instance(segment, label, path, where)))
    else:
        columns = ("video", "start", "end", "label")
        for line, (video_id, *segment, label) in csv_rows(path, columns, ",".join(columns), only=True):
            where = f"line {line}"
            segments.setdefault(video_id, []).append((where, _instance(segment, label, path, where)))
    for video_id in segments:
        check_id(video_id, path)
    return segments


def is_segments(content: object) -> bool:
    """Whether the content of a JSON file has the form that :func:`read_segments` expects."""
    return isinstance(content, dict) and all(isinstance(rows, list) for rows in content.values())


def _instance(segment: object, label: object, path: Path, where: str) -> Instance:
    try:
        start, end = fields.segment(segment)
        name = fields.name(label, "label")
    except ValueError as error:
        raise WtalError(f"{path}: {where}: {error}") from None
    if start < 0:
        raise WtalError(f"{path}: {where}: segment starts at {start:g}, expected seconds from 0")
    return Instance(start, end, name)
