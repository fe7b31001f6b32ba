"""Opens the videos of a run, in the same way for training, evaluation and the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wtal.data.folds import fold_of
from wtal.data.open import open_data
from wtal.data.video import VideoSet
from wtal.errors import WtalError
from wtal.runs.setup import Setup, moved
from wtal.settings.config import ScheduleConfig


def open_videos(setup: Setup, schedule: ScheduleConfig, progress: Callable[[int, int], None] | None = None) -> VideoSet:
    """Open the data set of a run, with CLIP features if the data set has them and the schedule uses them.

    Args:
        setup: the setup, which names the data set and its folder.
        schedule: the schedule; kind ``cbp`` does not use CLIP features.
        progress: called with (videos done, all videos) during the generation or conversion of data.

    Raises:
        WtalError: as for :func:`wtal.data.open.open_data`; or there is a folder of CLIP features that lacks a video.
    """
    reads_clip = schedule.kind != "cbp"
    data = open_data(
        setup.dataset,
        Path(setup.root) if setup.root else None,
        features=setup.features,
        layout=setup.layout,
        shapes=setup.shapes,
        world=setup.world,
        allow_missing=setup.allow_missing,
        progress=progress,
        need_clip=reads_clip,
        ignore_clip=not reads_clip,
    )
    return data if setup.fold is None else fold_of(data, setup.fold)


def open_again(setup: Setup, schedule: ScheduleConfig, root: Path | None = None) -> VideoSet:
    """Open the data set of a finished run.

    Args:
        setup: the run's setup.
        schedule: the run's schedule.
        root: the folder of the data now; None: they are where they were during training.

    Raises:
        WtalError: as for :func:`open_videos`. If the old folder is gone, the message names ``--root``.
    """
    if root is None:
        check_place(setup)
    return open_videos(moved(setup, None if root is None else str(root)), schedule)


def check_place(setup: Setup) -> None:
    """Check that the folder of a run's data still exists. The message of the error names ``--root``.

    Raises:
        WtalError: there is no such file or folder.
    """
    place = setup.dataset if setup.dataset.endswith(".toml") else setup.root
    if place is not None and not Path(place).exists():
        raise WtalError(f"{place}: no such file or folder; if the data of the run have moved, say --root NEW")
