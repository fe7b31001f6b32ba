"""Detections and their files: the official ActivityNet JSON, and CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wtal.errors import WtalError
from wtal.platform import fields
from wtal.platform.files import write_atomically
from wtal.platform.text import csv_rows

_JSON = "predictions as JSON ({'results': {video: [{'score', 'segment', 'label'}]}})"
_COLUMNS = ("video", "start", "end", "label", "score")


@dataclass(frozen=True)
class Detection:
    """One detected action: ``start`` and ``end`` in seconds, ``label`` a class name, ``score`` any finite number."""

    start: float
    end: float
    label: str
    score: float


Predictions = dict[str, list[Detection]]
"""Detections by video id. A video in which nothing was found has an empty list."""


def read_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Read a predictions file: CSV if its name ends in ``.csv``, else the official ActivityNet JSON.

    The order in the file is kept, because it breaks ties between equal scores.

    Raises:
        WtalError: no such file, or a value is not valid; the error names the file, the video and the value.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return _read_csv(path)
    return parse_predictions(fields.load_json(path, _JSON), path)


def parse_predictions(content: object, path: str | os.PathLike[str]) -> Predictions:
    """Like :func:`read_predictions`, for the content of a JSON file; ``path`` is its name in messages."""
    results = content.get("results") if isinstance(content, Mapping) else None
    if not isinstance(results, Mapping):
        raise WtalError(f"{path}: unknown structure {fields.shown(content)}, expected {_JSON}")
    predictions: Predictions = {}
    for video, records in results.items():
        if not isinstance(records, list | tuple):
            raise WtalError(f"{path}: video {video!r}: {fields.shown(records)}, expected a list of detections")
        detections = predictions[video] = []
        for index, record in enumerate(records):
            try:
                start, end = fields.segment(fields.take(record, "segment", "[start, end] in seconds"))
                label = fields.name(fields.take(record, "label", "a class name"), "label")
                score = fields.number(fields.take(record, "score", "a finite number"), "score")
            except ValueError as error:
                raise WtalError(f"{path}: video {video!r}: detection {index}: {error}") from None
            detections.append(Detection(start, end, label, score))
    return predictions


def _read_csv(path: Path) -> Predictions:
    expected = f"predictions as CSV ({','.join(_COLUMNS)})"
    predictions: Predictions = {}
    for line, (video, first, last, name, said) in csv_rows(path, _COLUMNS, expected):
        try:
            fields.name(video, "video")
            start, end = fields.segment((first, last))
            label, score = fields.name(name, "label"), fields.number(said, "score")
        except ValueError as error:
            raise WtalError(f"{path}: line {line}, video {video!r}: {error}") from None
        predictions.setdefault(video, []).append(Detection(start, end, label, score))
    return predictions


def check_predictions(predictions: Mapping[str, Iterable[Detection]], source: str) -> Predictions:
    """Check detections that a program made, with the same rules as for a file.

    Raises:
        WtalError: a number is not finite, an end is before its start, or a label is empty. The message begins with
            ``source``.
    """
    checked: Predictions = {}
    for video, detections in predictions.items():
        try:
            fields.name(video, "video")
        except ValueError as error:
            raise WtalError(f"{source}: {error}") from None
        if not isinstance(detections, Iterable) or isinstance(detections, str | bytes | Mapping):
            raise WtalError(f"{source}: video {video!r}: {fields.shown(detections)}, expected a list of detections")
        kept = checked[video] = []
        for index, detection in enumerate(detections):
            if not all(hasattr(detection, key) for key in ("start", "end", "label", "score")):
                message = f"{fields.shown(detection)}, expected a wtal.Detection(start, end, label, score)"
                raise WtalError(f"{source}: video {video!r}: detection {index}: {message}")
            try:
                start, end = fields.segment((detection.start, detection.end))
                label, score = fields.name(detection.label, "label"), fields.number(detection.score, "score")
            except (AttributeError, ValueError) as error:
                raise WtalError(f"{source}: video {video!r}: detection {index}: {error}") from None
            kept.append(Detection(start, end, label, score))
    return checked


def to_official(predictions: Mapping[str, Sequence[Detection]]) -> dict[str, object]:
    """The official ActivityNet structure, ready for ``json.dump``: version, results, external_data."""
    results = {
        video: [
            {"score": detection.score, "segment": [detection.start, detection.end], "label": detection.label}
            for detection in detections
        ]
        for video, detections in predictions.items()
    }
    return {"version": "VERSION 1.3", "results": results, "external_data": {}}


def write_predictions(path: str | os.PathLike[str], predictions: Mapping[str, Sequence[Detection]]) -> None:
    """Write a predictions file, atomically: CSV if its name ends in ``.csv``, else the official ActivityNet JSON.

    Reading the file back gives the same float64 numbers. For a video without detections, CSV has no row and JSON has
    an empty list.

    Raises:
        WtalError: a detection is not valid, or the file cannot be written (then no partial file remains).
    """
    path = Path(path)
    checked = check_predictions(predictions, str(path))
    if path.suffix.lower() == ".csv":
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for video, detections in checked.items():
            rows.writerows(
                (video, detection.start, detection.end, detection.label, detection.score) for detection in detections
            )
        write_atomically(path, text.getvalue().encode())
    else:
        write_atomically(path, json.dumps(to_official(checked)).encode())
