"""Where THUMOS14 does not say whether an action takes place: ``Ambiguous_test.txt``, a video, start and end a line.

The file lies beside the ground truth, where W-TALC's bundle has it. A label ``Ambiguous`` in the ground truth says the
same.
"""

from __future__ import annotations

from pathlib import Path

from wtal.errors import WtalError
from wtal.platform import fields
from wtal.platform.text import read_text

FILE = "Ambiguous_test.txt"

Intervals = tuple[tuple[float, float], ...]
"""Pairs of start and end in seconds."""


def is_ambiguous(label: str) -> bool:
    """Whether a label says that nobody knows, and names no class."""
    return label.casefold() == "ambiguous"


def beside(folder: Path) -> dict[str, Intervals]:
    """The intervals of each video that the file in a folder gives; none where there is no such file.

    A line is ``video start end`` with any blanks between.

    Raises:
        WtalError: it cannot be read, or a line is not of that form.
    """
    path = folder / FILE
    intervals: dict[str, Intervals] = {}
    if not path.is_file():
        return intervals
    for number, line in enumerate(read_text(path, "lines of video, start, end").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            if len(words) != 3:
                raise ValueError(f"{fields.shown(line)}, expected a video, start and end in seconds")
            interval = fields.segment(words[1:])
        except ValueError as error:
            raise WtalError(f"{path}: line {number}: {error}") from None
        intervals[words[0]] = (*intervals.get(words[0], ()), interval)
    return intervals
