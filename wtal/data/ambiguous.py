"""The ambiguous intervals of THUMOS14: ``Ambiguous_test.txt`` has a video, a start and an end in each line.

THUMOS14 does not say whether an action takes place in these intervals.

The file is beside the ground truth, as in the download of W-TALC. A label ``Ambiguous`` in the ground truth has the
same meaning.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from wtal.errors import WtalError
from wtal.platform import fields
from wtal.platform.text import read_text

FILE = "Ambiguous_test.txt"

Intervals = tuple[tuple[float, float], ...]
"""Pairs of start and end in seconds."""


def is_ambiguous(label: str) -> bool:
    """Whether a label marks an ambiguous interval and does not name a class."""
    return label.casefold() == "ambiguous"


def beside(folder: Path, ids: Collection[str]) -> dict[str, Intervals]:
    """The ambiguous intervals by video id, from the file in a folder; empty if the folder has no such file.

    A line is ``video start end``, separated by any whitespace. A video outside ``ids`` has no space in its id.

    Raises:
        WtalError: the file cannot be read, or a line has another form.
    """
    path = folder / FILE
    intervals: dict[str, Intervals] = {}
    if not path.is_file():
        return intervals
    for number, line in enumerate(read_text(path, "lines of video, start, end").splitlines(), 1):
        words = line.strip().rsplit(None, 2)
        if not words:
            continue
        try:
            if len(words) != 3 or (len(words[0].split()) > 1 and words[0] not in ids):
                raise ValueError(f"{fields.shown(line)}, expected a video, start and end in seconds")
            interval = fields.segment(words[1:])
        except ValueError as error:
            raise WtalError(f"{path}: line {number}: {error}") from None
        intervals[words[0]] = (*intervals.get(words[0], ()), interval)
    return intervals
