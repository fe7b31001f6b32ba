"""A data set in memory: features once, labels for training, temporal annotation for measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wtal.data.features import read_features
from wtal.data.open import open_data
from wtal.data.own_files import read_segments
from wtal.data.video import Video, VideoSet
from wtal.errors import WtalError

from .models.base import Baseline


@dataclass(frozen=True)
class Data:
    """Videos with their features ``[T, D]`` float32, by id."""

    videos: VideoSet
    features: dict[str, np.ndarray]

    @classmethod
    def read(cls, path: Path, folds: bool = False, train_segments: Path | None = None) -> Data:
        """Open a ``dataset.toml`` and read all features.

        Args:
            path: of the ``dataset.toml``.
            folds: whether the training videos need temporal annotation, for measuring.
            train_segments: where it is; None for where ``dataset.toml`` says, else ``train_segments.csv`` beside it.
        """
        videos = open_data(str(path))
        known = all(video.instances is not None for video in videos.subset("train"))
        if folds and (train_segments is not None or not known):
            videos = annotated(videos, train_segments or path.with_name("train_segments.csv"))
        return cls(videos, {video.id: read_features(video) for video in videos})

    def labels(self, videos: Sequence[Video]) -> Tensor:
        """``[V, C]`` of zeros and ones."""
        return torch.from_numpy(np.stack([self.videos.multi_hot(video) for video in videos]))

    def features_of(self, kind: type[Baseline], training: Sequence[Video], videos: Sequence[Video]) -> list[Tensor]:
        """Features of some videos as a model wants them.

        Standardised, it is by the mean and deviation over all snippets of the training ones.
        """
        rows = [self.features[video.id] for video in videos]
        if kind.training_settings.standardise:
            every = np.concatenate([self.features[video.id] for video in training])
            mean, deviation = every.mean(0), every.std(0) + 1e-6
            rows = [(one - mean) / deviation for one in rows]
        return [torch.from_numpy(one) for one in rows]


def annotated(videos: VideoSet, path: Path) -> VideoSet:
    """The same with the training videos' instances from a file.

    Raises:
        WtalError: there is no such file, it is malformed, or it has no segment of a training video.
    """
    if not path.is_file():
        raise WtalError(
            f"{path}: no such file, expected the temporal annotation of the training videos (video,start,end,label)"
        )
    found = read_segments(path)
    every = []
    for video in videos:
        if video.subset == "train":
            if video.id not in found:
                raise WtalError(f"{path}: no segment of training video {video.id!r}, expected at least one")
            video = replace(video, instances=tuple(instance for _, instance in found[video.id]))
        every.append(video)
    return replace(videos, videos=tuple(every))
