"""The synthetic benchmark as a data set on disk, in any of the field's layouts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from wtal.data.catalog import open_folder
from wtal.data.npy import load_npy
from wtal.data.synthetic.events import Events, SnippetKind, Span, draw_events, draw_instances, draw_real_instances
from wtal.data.synthetic.features import clip_features, i3d_features
from wtal.data.synthetic.folder import DESCRIPTION, build_folder, read_description
from wtal.data.synthetic.parameters import DEFAULT, Parameters
from wtal.data.synthetic.randomness import Purpose, generator
from wtal.data.synthetic.world import World, make_world
from wtal.data.synthetic.write_layouts import (
    FeatureWriter,
    Layout,
    Record,
    check_layout,
    grid,
    save_array,
    write_annotations,
)
from wtal.data.video import Instance, VideoSet
from wtal.errors import WtalError

GENERATOR_VERSION = DEFAULT.version
"""The generator version of the default parameters. It changes whenever a seed gives other data; results are
comparable only within one version. Version 2 exists in addition to version 1 (:attr:`Parameters.version`)."""

CONTENT = "benchmark"
"""The value of ``content`` in ``wtal-synthetic.json`` for folders that this module writes."""

TEXT_FEATURES = "wtal-text-features.npy"
"""Not ``text_features.npy``: in a small set a class may have a text feature but no video. Only :func:`open_synthetic`
handles this."""

NAMES = (
    *("AnvilStrike", "BannerWave", "CartPush", "DrumRoll", "FenceVault", "GateHaul", "HatToss", "KiteLaunch"),
    *("LadderClimb", "MastHoist", "NetCast", "OarPull", "PlankBalance", "QuiltShake", "RopeSwing", "SackLift"),
    *("TorchSpin", "UrnPour", "WheelTurn", "YarnWind"),
)
"""Invented class names, sorted. They have no meaning: the appearance of a class is random."""


@dataclass(frozen=True)
class SyntheticVideo:
    """One generated video.

    Attributes:
        events: the events of the video; ``events.kinds`` ``[T]`` int8.
        i3d: ``[T, Di]`` float32.
        clip: ``[T, Dc]`` float32, unit norm.
    """

    events: Events
    i3d: np.ndarray
    clip: np.ndarray

    @property
    def instances(self) -> tuple[Span, ...]:
        """The spans of the actions, in snippets."""
        return tuple(Span(action.start, action.end, action.label) for action in self.events.actions)


def class_names(count: int) -> tuple[str, ...]:
    """Names for ``count`` classes, sorted."""
    return NAMES[:count] if count <= len(NAMES) else tuple(f"Class{index:05d}" for index in range(count))


def video_ids(parameters: Parameters) -> Iterator[tuple[str, str]]:
    """``(id, subset)`` of each video of the benchmark, in order."""
    for subset, count in (("train", parameters.size.training_videos), ("test", parameters.size.test_videos)):
        for index in range(count):
            yield f"synthetic_{subset}_{index:05d}", subset


def make_video(seed: int, video_id: str, world: World, parameters: Parameters) -> SyntheticVideo:
    """Generate one video; the result depends only on the arguments. ``parameters`` must be resolved."""
    size, real, rng = parameters.size, parameters.real, generator(seed, Purpose.INSTANCES, video_id)
    if real is None:
        num_snippets, instances = draw_instances(size, parameters.events, rng)
    else:
        num_snippets, instances = draw_real_instances(size, parameters.events, real, rng)
    events = draw_events(
        num_snippets,
        instances,
        parameters.size.classes,
        parameters.events,
        generator(seed, Purpose.EVENTS, video_id),
    )
    return SyntheticVideo(
        events,
        i3d_features(events, world.i3d, parameters.i3d, generator(seed, Purpose.I3D, video_id), real=real),
        clip_features(events, world.clip, parameters.clip, generator(seed, Purpose.CLIP, video_id), real=real),
    )


def synthetic_dataset(
    seed: int,
    directory: str | os.PathLike[str],
    layout: Layout = "basnet",
    parameters: Parameters = DEFAULT,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the synthetic benchmark.

    In addition to the files of the layout: ``clip/<id>.npy`` ``[T, Dc]`` float32; ``wtal-text-features.npy``
    ``[C, Dc]`` float32, unit norm, in the order of ``"classes"`` in ``wtal-synthetic.json``; and, only for analysis,
    ``kinds/<id>.npy`` ``[T]`` int8 (:class:`SnippetKind`). The features are the same in every layout; the times
    in seconds depend on the layout.

    Args:
        seed: chooses the world and the videos; from 0.
        directory: a new or empty folder, or one made before with the same arguments, which stays unchanged.
        layout: see :mod:`wtal.data.synthetic.write_layouts`.
        parameters: sizes and strengths.
        progress: called with (videos done, videos in all).

    Returns:
        ``directory``.

    Raises:
        WtalError: the layout is unknown, or ``directory`` has other content.
    """
    check_layout(layout)
    classes = class_names(parameters.size.classes)
    resolved = parameters.resolved()

    def fill(root: Path) -> None:
        world = make_world(seed, len(classes), resolved)
        writer = FeatureWriter(root, layout)
        records = []
        videos = list(video_ids(parameters))
        for done, (video_id, subset) in enumerate(videos, start=1):
            video = make_video(seed, video_id, world, resolved)
            writer.add(video_id, subset, video.i3d)
            save_array(root / "clip" / f"{video_id}.npy", video.clip)
            save_array(root / "kinds" / f"{video_id}.npy", video.events.kinds)
            records.append(_record(video_id, subset, video, layout, classes))
            if progress is not None:
                progress(done, len(videos))
        writer.close()
        write_annotations(root, layout, records, classes)
        save_array(root / TEXT_FEATURES, world.clip.text)

    description = {
        "generator_version": parameters.version,
        "content": CONTENT,
        "seed": seed,
        "layout": layout,
        "classes": classes,
        "kinds": [kind.name.lower() for kind in SnippetKind],
        # Folders of version 1 that are older than version 2 have no "real".
        "parameters": {key: value for key, value in asdict(parameters).items() if value is not None},
    }
    return build_folder(directory, description, fill)


def open_synthetic(directory: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None) -> VideoSet:
    """Open what :func:`synthetic_dataset` wrote, through the loader of its layout.

    Args:
        directory: the folder.
        progress: called after each video in the one-time conversion of wtalc's joint file.

    Returns:
        The set ``"synthetic"`` with all its classes, including classes without a video, and its text features.

    Raises:
        WtalError: the folder is of another kind, or damaged.
    """
    root = Path(directory)
    description = read_description(root)
    if description.get("content") != CONTENT:
        raise WtalError(
            f"{root / DESCRIPTION}: content is {description.get('content')!r}, expected the {CONTENT!r} "
            "that wtal generates"
        )
    classes = tuple(description["classes"])
    text = load_npy(root / TEXT_FEATURES)
    if text.dtype != np.float32 or text.ndim != 2 or len(text) != len(classes):
        raise WtalError(
            f"{root / TEXT_FEATURES}: {text.dtype} of shape {list(text.shape)}, expected float32 [{len(classes)}, D]"
        )
    data = open_folder(root, name="synthetic", progress=progress)
    return replace(data, classes=classes, text_features=text, kinds=root / "kinds")


def _record(video_id: str, subset: str, video: SyntheticVideo, layout: Layout, classes: tuple[str, ...]) -> Record:
    time = grid(layout)
    # The seconds are whole hundredths: rounding removes the error of binary fractions.
    instances = tuple(
        Instance(round(time.edge(span.start), 6), round(time.edge(span.end), 6), classes[span.label])
        for span in video.instances
    )
    frames = (video.events.num_snippets - 1) * time.stride + time.window
    return Record(video_id, subset, round(frames / time.fps, 6), instances)
