"""Cross-validation inside the training videos: a hash of the id selects the parts, and one part is held out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace

from wtal.data.video import VideoSet
from wtal.errors import WtalError


def parse_fold(text: str) -> tuple[int, int]:
    """``"2/5"`` as (2, 5): the second of five parts.

    Raises:
        WtalError: the text has another form, there are fewer than two parts, or there is no such part.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    number, folds = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= folds or folds < 2:
        raise WtalError(f"--fold {text}: expected a part and how many there are, such as 2/5")
    return number, folds


def parts(ids: Iterable[str], folds: int) -> dict[str, int]:
    """The part (1 to ``folds``) of each video: the videos are assigned in turn, in the order of the SHA-256 of the ids.

    The sizes of the parts differ by one video at most. The parts depend only on the ids, not on their order.
    """
    order = sorted(ids, key=lambda video: (hashlib.sha256(video.encode()).digest(), video))
    return {video: 1 + place % folds for place, video in enumerate(order)}


def fold_of(data: VideoSet, text: str) -> VideoSet:
    """The training videos only: one part becomes the test videos, the other parts are for training.

    The test videos of the data set are left out. A held-out video without temporal annotation is left out too, since
    nothing can be measured on it.

    Args:
        data: a data set with training videos.
        text: the part, as for :func:`parse_fold`.

    Raises:
        WtalError: there are more parts than videos, or no held-out video has temporal annotation.
    """
    number, folds = parse_fold(text)
    train = data.subset("train")
    if folds > len(train):
        raise WtalError(f"{data.name}: {folds} parts of {len(train)} training videos, expected at least one video each")
    part = parts((video.id for video in train), folds)
    videos = tuple(
        replace(video, subset="test") if part[video.id] == number else video
        for video in train
        if part[video.id] != number or video.instances is not None
    )
    if not any(video.subset == "test" for video in videos):
        raise WtalError(
            f"{data.name}: no training video in part {text} has temporal annotation, expected some to measure on; "
            "'train_segments' in a dataset.toml names it"
        )
    return replace(data, name=f"{data.name}, part {text} of its training videos", videos=videos, test_notes=())
