"""Generated features with the shapes of real ones for real annotations: for full-size runs without real features."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from wtal.data.annotations import AnnotatedVideo, Annotations, split_names
from wtal.data.layouts.protocol import Dataset
from wtal.data.synthetic.dataset import GENERATOR_VERSION
from wtal.data.synthetic.events import Span, draw_events
from wtal.data.synthetic.features import clip_features, i3d_features
from wtal.data.synthetic.folder import build_folder
from wtal.data.synthetic.parameters import DEFAULT, TRUE_SHAPES, Parameters
from wtal.data.synthetic.randomness import Purpose, generator
from wtal.data.synthetic.world import World, make_world
from wtal.data.synthetic.write_layouts import FPS, FeatureWriter, Layout, grid, save_array
from wtal.data.timebase import Timebase
from wtal.data.video_id import check_id
from wtal.errors import WtalError

_MOST_SNIPPETS = 1_000_000  # a week at 25 fps; a wrong duration in a file must not allocate unlimited memory

FULL_SIZE = replace(DEFAULT, size=TRUE_SHAPES)
"""The benchmark's strengths at the shapes of real features; counts and lengths come from the annotations."""


def synthetic_features(
    annotations: Annotations,
    classes: Sequence[str],
    directory: str | os.PathLike[str],
    seed: int,
    dataset: Dataset,
    layout: Layout,
    parameters: Parameters = FULL_SIZE,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write features for the videos of a real ground-truth file, and a copy of that file, in one layout.

    The features follow the benchmark's event model with the annotated instances as its instances: I3D-like
    ``[T, 2048]`` and CLIP-like ``clip/<id>.npy`` ``[T, 512]``, both float16. T follows from the duration. If the file
    gives no duration (basnet), T follows from the end of the last instance plus a random remainder. Snippets are those
    of the layout: 16 frames at 25 fps; in ActionFormer's for THUMOS14, 16 frames every 4 at the video's own fps.

    There are no text features: CLIP's text encoder encodes the class names. The CLIP-like features are in a space
    that is unrelated to that encoder, so **accuracy measured on them is meaningless**; size, speed and memory of the
    run are realistic.

    Args:
        annotations: as read from the layout's file or folder.
        classes: all class names in index order.
        directory: a new or empty folder, or one made before with the same arguments, which stays unchanged.
        seed: from 0.
        dataset: the data set, whose file names and grid the layout uses.
        layout: the layout to write.
        parameters: strengths and the two widths.
        progress: called with (videos done, videos in all).

    Returns:
        ``directory``.

    Raises:
        WtalError: the annotations have another kind, a class is unknown, or ``directory`` has other content.
    """
    if annotations.kind not in ("wtalc", "basnet", "actionformer"):
        raise WtalError(
            f"{annotations.path}: generated features for {annotations.kind} annotations are not offered, "
            "expected a wtalc folder, basnet's gt.json or actionformer's thumos14.json"
        )
    index = {name: position for position, name in enumerate(classes)}
    for video in annotations.videos.values():
        check_id(video.id, annotations.path)
        for label in {*video.labels, *(instance.label for instance in video.instances or ())}:
            if label not in index:
                raise WtalError(
                    f"{annotations.path}: video {video.id!r}: class {label!r}, "
                    f"expected one of the {len(index)} of the data set"
                )
    resolved = parameters.resolved()

    def fill(root: Path) -> None:
        _copy_annotations(annotations, layout, dataset, root)
        world = make_world(seed, len(index), resolved)
        splits = split_names({video.subset for video in annotations.videos.values()}, annotations.videos)
        writer = FeatureWriter(root, layout, prefix=annotations.path.name.removesuffix("-Annotations"))
        for done, video in enumerate(annotations.videos.values(), start=1):
            time = (layout == "actionformer" and dataset.actionformer_grid) or grid(layout, video.fps or FPS)
            i3d, clip = _video_features(video, index, time, seed, world, resolved)
            writer.add(video.id, splits[video.subset], i3d)
            save_array(root / "clip" / f"{video.id}.npy", clip)
            if progress is not None:
                progress(done, len(annotations.videos))
        writer.close()

    description = {
        "generator_version": GENERATOR_VERSION,
        "content": "features for real annotations",
        "seed": seed,
        "layout": layout,
        "classes": list(classes),
        "annotations": annotations_digest(annotations),
        "parameters": asdict(parameters),
    }
    return build_folder(directory, description, fill)


def _video_features(
    video: AnnotatedVideo, index: dict[str, int], time: Timebase, seed: int, world: World, p: Parameters
) -> tuple[np.ndarray, np.ndarray]:
    """``[T, Di]`` and ``[T, Dc]`` float16."""
    # The parameters' lengths refer to 16-frame snippets at 25 fps and to videos of the benchmark's length.
    pace = time.snippets_per_second / grid("basnet").snippets_per_second
    num_snippets = _length(video, time, seed)
    events = draw_events(
        num_snippets,
        [
            _span(time, instance.start, instance.end, index[instance.label], num_snippets)
            for instance in video.instances or ()
        ],
        len(index),
        p.events,
        generator(seed, Purpose.EVENTS, video.id),
        labels=[index[label] for label in video.labels],
        pace=pace,
        abundance=num_snippets / pace / (0.5 * (DEFAULT.size.min_snippets + DEFAULT.size.max_snippets)),
    )
    i3d = i3d_features(events, world.i3d, p.i3d, generator(seed, Purpose.I3D, video.id), pace)
    clip = clip_features(events, world.clip, p.clip, generator(seed, Purpose.CLIP, video.id), pace)
    return i3d.astype(np.float16), clip.astype(np.float16)


def _length(video: AnnotatedVideo, time: Timebase, seed: int) -> int:
    """T: the number of complete windows in the video, but at least enough for its instances."""
    last = max((instance.end for instance in video.instances or ()), default=0.0)
    duration = video.duration
    if duration is None:
        duration = last + generator(seed, Purpose.INSTANCES, video.id).uniform(5.0, 30.0)
    windows = math.floor((duration * time.fps - time.window) / time.stride) + 1
    length = max(1, windows, math.ceil(time.position(last)))
    if length > _MOST_SNIPPETS:
        raise WtalError(f"video {video.id!r} would have {length} snippets, expected at most {_MOST_SNIPPETS}")
    return length


def _span(time: Timebase, start: float, end: float, label: int, num_snippets: int) -> Span:
    """The snippets whose time is mostly inside ``[start, end)`` seconds; at least one."""
    first = min(max(0, round(time.position(start))), num_snippets - 1)
    return Span(first, min(max(first + 1, round(time.position(end))), num_snippets), label)


def _copy_annotations(annotations: Annotations, layout: Layout, dataset: Dataset, root: Path) -> None:
    """Copy the real files to the paths that the loaders search."""
    source = annotations.path
    if layout == "wtalc":
        folder = root / source.name
        folder.mkdir()
        for path in sorted(source.iterdir()):
            if path.suffix in (".npy", ".txt"):
                shutil.copyfile(path, folder / path.name)
    elif layout == "actionformer":
        (root / "annotations").mkdir()
        shutil.copyfile(source, root / "annotations" / dataset.actionformer_truth[0])
    else:
        shutil.copyfile(source, root / dataset.truth[0])
        for subset in ("train", "test"):
            names = "".join(f"{video.id}\n" for video in annotations.split(subset))
            (root / f"split_{subset}.txt").write_text(names, encoding="utf-8")


def annotations_digest(annotations: Annotations) -> str:
    """SHA-256 of the inputs of the features: the videos, their durations and instances."""
    videos = [asdict(video) for video in annotations.videos.values()]
    return hashlib.sha256(json.dumps(videos, sort_keys=True).encode()).hexdigest()
