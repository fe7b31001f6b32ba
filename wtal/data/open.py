"""Opens every kind of data set: on disk, generated, or real annotations with generated features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

from wtal.data.annotations import read_annotations
from wtal.data.cache import Progress, cache_root
from wtal.data.catalog import find_annotations, named, open_dataset
from wtal.data.feature_index import with_lengths
from wtal.data.span_check import check_clip_rows, check_spans
from wtal.data.synthetic import (
    DEFAULT,
    GENERATOR_VERSION,
    TRUE_SHAPES,
    VERSION_2,
    annotations_digest,
    open_synthetic,
    synthetic_dataset,
    synthetic_features,
)
from wtal.data.synthetic.parameters import ControlParameters
from wtal.data.synthetic.write_layouts import Layout
from wtal.data.video import VideoSet
from wtal.errors import WtalError

BENCHMARKS = {
    "small": DEFAULT,
    "true": replace(DEFAULT, size=TRUE_SHAPES),
    "easy": replace(DEFAULT, control=ControlParameters(difficulty=0.75)),
    "hard": replace(DEFAULT, control=ControlParameters(difficulty=1.25)),
    "clip-without-action": replace(DEFAULT, control=ControlParameters(clip_without_action=True)),
    "i3d-with-scene": replace(DEFAULT, control=ControlParameters(i3d_with_scene=True)),
    "no-core-gap": replace(DEFAULT, control=ControlParameters(no_core_gap=True)),
    "version-2": VERSION_2,
    "version-2-clip-without-action": replace(VERSION_2, control=ControlParameters(clip_without_action=True)),
    "version-2-i3d-with-scene": replace(VERSION_2, control=ControlParameters(i3d_with_scene=True)),
    "version-2-no-core-gap": replace(VERSION_2, control=ControlParameters(no_core_gap=True)),
}
"""The embedded benchmark by ``--shapes``: ``small`` features for two minutes on a CPU, or ``true`` shapes, as wide and
long as real features. The other sets are small too and are for ``wtal-ablate``: two more difficulties, the three
negative controls, and version 2 of the generator with its controls."""


def open_data(
    dataset: str,
    root: Path | None = None,
    features: str = "disk",
    layout: Layout = "basnet",
    shapes: str = "small",
    world: int = 0,
    allow_missing: bool = False,
    progress: Progress | None = None,
    need_clip: bool = False,
    ignore_clip: bool = False,
) -> VideoSet:
    """Open a data set by name or by the path of a ``dataset.toml``, and generate it first if necessary.

    Generated data are under the cache folder (:func:`wtal.data.cache.cache_root`) and are generated once.

    Args:
        dataset: ``synthetic``, ``thumos14``, ``activitynet12``, ``activitynet13``, or a path ending in ``.toml``.
        root: folder of the data set, None to search the default folders.
        features: ``disk``, or ``synthetic`` to generate features for the real annotations under ``root``.
        layout: the layout of the generated files, for ``synthetic``.
        shapes: a key of :data:`BENCHMARKS`, for ``synthetic``.
        world: the seed of generated data.
        allow_missing: leave out videos without features instead of raising.
        progress: called during long work.
        need_clip: if there is a folder of CLIP features, a video without CLIP features counts as missing.
        ignore_clip: ignore all CLIP features.

    Raises:
        WtalError: no data set was found, a file is malformed, or the features are on another grid than specified.
    """
    opened = _opened(dataset, root, features, layout, shapes, world, allow_missing, progress, need_clip)
    if ignore_clip:
        opened = replace(opened, videos=tuple(replace(video, clip=None, clip_fps=None) for video in opened.videos))
    known = with_lengths(opened, allow_missing, progress)
    return replace(known, notes=(*known.notes, *check_spans(known), *check_clip_rows(known)))


def _opened(
    dataset: str,
    root: Path | None,
    features: str,
    layout: Layout,
    shapes: str,
    world: int,
    allow_missing: bool,
    progress: Progress | None,
    need_clip: bool,
) -> VideoSet:
    if dataset == "synthetic":
        if shapes not in BENCHMARKS:
            raise WtalError(f"--shapes {shapes}: expected one of {', '.join(BENCHMARKS)}")
        version = BENCHMARKS[shapes].version
        folder = cache_root() / f"synthetic-v{version}" / f"{shapes}-{layout}-world{world}"
        return open_synthetic(synthetic_dataset(world, folder, layout, BENCHMARKS[shapes], progress), progress)
    if features == "disk":
        return open_dataset(dataset, root, allow_missing, progress, need_clip)
    if dataset.endswith(".toml"):
        raise WtalError(f"--features synthetic goes with a named data set, not with {dataset}")
    found = find_annotations(dataset, root)
    annotations = read_annotations(found.truth)
    kind = cast(Layout, found.layout.NAME)
    name = f"{kind}-{annotations_digest(annotations)[:12]}-world{world}"  # other annotations, another folder
    folder = cache_root() / f"{dataset}-synthetic-v{GENERATOR_VERSION}" / name
    synthetic_features(annotations, annotations.classes, folder, world, named(dataset), kind, progress=progress)
    return open_dataset(dataset, folder, allow_missing, progress)
