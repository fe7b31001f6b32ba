"""A table of figures of features and annotation, of real and of generated data beside each other.

    python tools/describe_features.py DIR/dataset.toml small version-2 [--world 0] [--clip]

Reads the training videos, which need temporal annotation (train_segments of dataset.toml, or train_segments.csv beside
it); wtal/data/synthetic/realism.py says what each figure is.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from wtal.data.clip_alignment import read_aligned_clip
from wtal.data.features import read_features
from wtal.data.open import BENCHMARKS, open_data
from wtal.data.own_files import read_segments
from wtal.data.synthetic.realism import Measured, describe, describe_zero_shot
from wtal.data.video import Video, VideoSet
from wtal.errors import WtalError


def measured(data: VideoSet, video: Video, clip: bool) -> Measured:
    """A video's features, or its CLIP features on the same grid, and its instances on that grid."""
    features = read_aligned_clip(video, len(read_features(video))) if clip else read_features(video)
    if video.instances is None:
        raise WtalError(f"video {video.id}: no temporal annotation, expected some to measure by (train_segments)")
    found = []
    for instance in video.instances:
        start = int(np.clip(round(float(video.timebase.position(instance.start))), 0, len(features)))
        end = int(np.clip(round(float(video.timebase.position(instance.end))), 0, len(features)))
        if end > start:
            found.append((start, end, data.classes.index(instance.label)))
    return Measured(features, tuple(found))


def figures(source: str, world: int, clip: bool) -> dict[str, float]:
    """Of a ``dataset.toml``, or of an embedded benchmark by name."""
    data = open_data("synthetic", shapes=source, world=world) if source in BENCHMARKS else open_data(source)
    beside = Path(source).with_name("train_segments.csv")
    training = data.subset("train")
    if any(video.instances is None for video in training) and beside.is_file():
        known = read_segments(beside)
        training = tuple(
            replace(video, instances=tuple(instance for _, instance in known.get(video.id, ()))) for video in training
        )
    videos = [found for video in training if (found := measured(data, video, clip)).instances]
    zero_shot = describe_zero_shot(videos, data.text_features) if clip and data.text_features is not None else {}
    return describe(videos) | zero_shot


def shown(value: float) -> str:
    """Three digits, and whole numbers whole."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help=f"paths of dataset.toml, or of {', '.join(BENCHMARKS)}")
    parser.add_argument("--world", type=int, default=0, help="of embedded benchmarks")
    parser.add_argument(
        "--clip", action="store_true", help="CLIP features instead of I3D features, and what the texts detect"
    )
    options = parser.parse_args()
    try:
        columns = [figures(source, options.world, options.clip) for source in options.sources]
    except WtalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("| | " + " | ".join(options.sources) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for name in dict.fromkeys(name for column in columns for name in column):
        print(f"| {name} | " + " | ".join(shown(column[name]) if name in column else "-" for column in columns) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
