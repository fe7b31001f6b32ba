"""Ground truth for an evaluation, from a public data set's annotations or from a user's own files."""

from __future__ import annotations

import os
from pathlib import Path

from wtal.data.ambiguous import beside
from wtal.data.annotations import AnnotatedVideo, Annotations, read_annotations
from wtal.data.dataset_toml import read_own_annotations
from wtal.data.own_files import is_segments, read_segments
from wtal.platform import fields


def read_ground_truth(path: str | os.PathLike[str]) -> Annotations:
    """Read a ``dataset.toml``, its segments file, or the annotation file of a public data set.

    A segments file alone has no subsets and no videos without a segment; a ``dataset.toml`` has both.

    Raises:
        WtalError: no such file, an unknown structure, or a value that is not valid.
    """
    path = Path(path)
    if path.suffix == ".toml":
        return read_own_annotations(path)
    if path.suffix == ".csv":
        return _of_segments(path)
    if path.suffix == ".json" and os.path.isfile(path):
        content = fields.load_json(path, "ground truth as JSON")
        if content and is_segments(content):
            return _of_segments(path)
    return read_annotations(path)


def _of_segments(path: Path) -> Annotations:
    videos = {}
    for video_id, rows in read_segments(path).items():
        instances = tuple(instance for _, instance in rows)
        labels = tuple(sorted({instance.label for instance in instances}))
        videos[video_id] = AnnotatedVideo(video_id, "", None, None, instances, labels)
    classes = tuple(sorted({label for video in videos.values() for label in video.labels}))
    return Annotations(path, "own", videos, classes).with_ambiguous(beside(path.parent, videos))
