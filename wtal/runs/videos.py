"""The videos of a run: the same for training, for evaluation and for the report."""

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
    """Open the data set of a run, with CLIP features where it has them and the schedule reads them.

    Args:
        setup: which data set, and where.
        schedule: kind ``cbp`` neither reads nor asks for CLIP features.
        progress: called with (videos done, all videos) while data are generated or converted.

    Raises:
        WtalError: as :func:`wtal.data.open.open_data`; with a folder of CLIP features, also where a video has none.
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
        root: where the run's data are now; None: where they were in training.

    Raises:
        WtalError: as :func:`open_videos`; where the old place is gone, the message names ``--root``.
    """
    if root is None:
        check_place(setup)
    return open_videos(moved(setup, None if root is None else str(root)), schedule)


def check_place(setup: Setup) -> None:
    """Check that the place of a run's data still exists; the error names ``--root``.

    Raises:
        WtalError: there is no such file or folder.
    """
    place = setup.dataset if setup.dataset.endswith(".toml") else setup.root
    if place is not None and not Path(place).exists():
        raise WtalError(f"{place}: no such file or folder; if the data of the run have moved, say --root NEW")
