"""Batches of videos: random crops for training, whole videos for inference."""

from __future__ import annotations

import hashlib
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wtal.data.clip_alignment import read_aligned_clip
from wtal.data.features import feature_lengths, feature_width, read_features
from wtal.data.prefetch import ahead
from wtal.data.video import Video, VideoSet
from wtal.errors import WtalError
from wtal.settings.config import BatchConfig

ALL = slice(None)


@dataclass(frozen=True)
class Batch:
    """Videos, or crops of videos, padded with zeros to the longest.

    Attributes:
        i3d: ``[B, T, Di]`` float32, None if it was not requested.
        clip: ``[B, T, Dc]`` float32 on the I3D snippets, None if it was not requested.
        lengths: ``[B]`` int64, the number of snippets that are not padding.
        labels: ``[B, C]`` float32, zeros and ones.
        index: ``[B]`` int64, the position of each video in the list that the batches were made from.
        start: ``[B]`` int64, first snippet of the crop.
        whole: the number of videos in the whole batch, if this is the share of one process; None if it is the whole.
    """

    i3d: Tensor | None
    clip: Tensor | None
    lengths: Tensor
    labels: Tensor
    index: Tensor
    start: Tensor
    whole: int | None = None

    @property
    def videos(self) -> int:
        """The number of videos in the whole batch: a loss is averaged over it."""
        return len(self.lengths) if self.whole is None else self.whole

    def parts(self, size: int) -> Iterator[Batch]:
        """The same videos, at most ``size`` at a time; 0: all at once. An empty share yields nothing."""
        for first in range(0, len(self.lengths), size or max(1, len(self.lengths))):
            here = slice(first, first + size) if size else ALL
            yield replace(self._each(operator.itemgetter(here)), whole=self.videos)

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {
            name: change(value) if isinstance(value, Tensor) else value for name, value in vars(self).items()
        }
        return Batch(**changed)


class TrainingBatches:
    """The batches of each epoch: all videos in random order, each cropped at a random position.

    Order and crops depend only on the seed, the epoch and the video's id, so that a resumed run needs no state.

    A branch of several networks needs several orders, one per network. A step then has one batch of each order, and
    its batches follow each other, so that no more of them are in memory than with one order.

    Args:
        data: the data set, whose classes are used.
        videos: the training videos.
        batch: batch size and crop length.
        seed: the seed of order and crops.
        with_i3d: read I3D features.
        with_clip: read CLIP features; then a video without them is an error.
        part: which videos of each batch to read. The order and the crops do not depend on it.
        orders: the number of orders. The first is the same whatever their number. The others have no CLIP features,
            which no branch of several networks reads.
    """

    def __init__(
        self,
        data: VideoSet,
        videos: Sequence[Video],
        batch: BatchConfig,
        seed: int,
        with_i3d: bool = True,
        with_clip: bool = True,
        part: slice = ALL,
        orders: int = 1,
    ) -> None:
        self._reader = _Reader(data, videos, with_i3d, with_clip)
        self._readers = (self._reader, *[_Reader(data, videos, with_i3d, with_clip=False)] * (orders - 1))
        self._batch = batch
        self._seed = seed
        self._lengths = feature_lengths(videos)
        self._part = part
        self.orders = orders
        self._began = self._waited = 0.0  # seconds

    def __len__(self) -> int:
        """Steps per epoch; the batch of the last may be partial."""
        return -(-self.videos // self._batch.size)

    @property
    def videos(self) -> int:
        """Videos per epoch and order; a video that occurs twice counts twice."""
        return self._batch.steps_per_epoch * self._batch.size or len(self._lengths)

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, starting at step ``first``: of every step one of each order.

        In an order every video is in exactly one batch. If ``steps_per_epoch`` is set, all videos occur equally often
        (within one).

        Raises:
            WtalError: a video's features are missing or malformed.
        """
        size = self._batch.size
        orders = [self._order(number, order) for order in range(self.orders)]
        wholes = (
            (reader, order[at : at + size])
            for at in range(first * size, self.videos, size)
            for reader, order in zip(self._readers, orders, strict=True)
        )
        return self._timed(
            ahead(replace(reader.batch(whole[self._part]), whole=len(whole)) for reader, whole in wholes)
        )

    def waiting(self) -> float:
        """The share of time spent waiting for a batch, since the first batch of the last epoch was requested."""
        return self._waited / max(time.monotonic() - self._began, 1e-9)

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        self._began, self._waited = time.monotonic(), 0.0
        while True:
            began = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - began
            if batch is None:
                return
            yield batch

    def _order(self, number: int, order: int) -> list[_Crop]:
        """The crops of one order in one epoch."""
        random = np.random.default_rng([self._seed, number, *([order] if order else [])])
        crops: list[_Crop] = []
        for again in range(-(-self.videos // len(self._lengths))):
            crops += [self._crop(int(index), number, again, order) for index in random.permutation(len(self._lengths))]
        return crops[: self.videos]

    def _crop(self, index: int, number: int, again: int, order: int) -> _Crop:
        total = int(self._lengths[index])
        length = min(total, self._batch.snippets)
        video = int.from_bytes(hashlib.sha256(self._reader.videos[index].id.encode()).digest()[:8], "big")
        position = [again, order] if order else [again] if again else []
        start = int(np.random.default_rng([self._seed, number, video, *position]).integers(total - length + 1))
        return _Crop(index, start, length, total)


def whole_videos(
    data: VideoSet,
    videos: Sequence[Video],
    batch_size: int,
    with_i3d: bool = True,
    with_clip: bool = True,
    snippets: int | None = None,
    part: slice = ALL,
) -> Iterator[Batch]:
    """Every video once and whole, longest first.

    In this order there is little padding, and if memory is too small, the first batch shows it.

    Args:
        data: the data set, whose classes are used.
        videos: the videos.
        batch_size: at most this many videos per batch.
        with_i3d: read I3D features.
        with_clip: read CLIP features.
        snippets: at most this many snippets per batch, padding included; a longer video is a batch of its own.
            None: no limit.
        part: which batches to return. Their content does not depend on it.

    Raises:
        WtalError: a video's features are missing or malformed.
    """
    reader = _Reader(data, videos, with_i3d, with_clip)
    lengths = feature_lengths(videos)
    order = np.argsort(-lengths, kind="stable")
    crops = [_Crop(int(index), 0, int(lengths[index]), int(lengths[index])) for index in order]

    batches: list[list[_Crop]] = []
    first = 0
    while first < len(crops):
        size = batch_size if snippets is None else max(1, min(batch_size, snippets // crops[first].length))
        batches.append(crops[first : first + size])
        first += size
    return ahead(reader.batch(crops) for crops in batches[part])


def in_parts(
    data: VideoSet,
    video: Video,
    length: int,
    size: int,
    overlap: int,
    with_i3d: bool = True,
    with_clip: bool = True,
) -> Iterator[tuple[Batch, int, int]]:
    """One long video in parts that overlap; only one part is in memory at a time.

    Args:
        data: the data set, whose classes are used.
        video: the video.
        length: the number of its snippets.
        size: each part represents this many snippets; the last part represents the rest.
        overlap: each part also reads up to this many snippets before and after these, within the video.
        with_i3d: read I3D features.
        with_clip: read CLIP features.

    Returns:
        batches of one part each, and the half-open range of snippets that the part represents.
    """
    reader = _Reader(data, (video,), with_i3d, with_clip)
    for first in range(0, length, size):
        last = min(first + size, length)
        start, stop = max(0, first - overlap), min(length, last + overlap)
        yield reader.batch([_Crop(0, start, stop - start, length)]), first, last


def statistics(videos: Iterable[Video]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each I3D dimension over all snippets of ``videos``: two ``[Di]`` float64.

    One pass over the files; the moments are combined as in Chan, Golub and LeVeque (1979).
    """
    count = 0
    mean = square = np.zeros(0)
    for video in videos:
        rows = read_features(video).astype(np.float64)
        own_mean = rows.mean(axis=0)
        own_square = np.square(rows - own_mean).sum(axis=0)
        if count == 0:
            mean, square = own_mean, own_square
        else:
            _as_wide(rows, len(mean), video, "I3D")
            apart = own_mean - mean
            mean = mean + apart * (len(rows) / (count + len(rows)))
            square = square + own_square + np.square(apart) * (count * len(rows) / (count + len(rows)))
        count += len(rows)
    if count == 0:
        raise ValueError("videos is empty, expected at least one")
    return mean, np.sqrt(square / count)


@dataclass(frozen=True)
class _Crop:
    """Snippets ``[start, start + length)`` of a video that has ``total`` snippets."""

    index: int
    start: int
    length: int
    total: int


class _Reader:
    """Makes batches of crops."""

    def __init__(self, data: VideoSet, videos: Sequence[Video], with_i3d: bool, with_clip: bool) -> None:
        self.videos = tuple(videos)
        self._data = data
        self._i3d_width = feature_width(videos[0].i3d) if videos and with_i3d else None
        clip = next((video.clip for video in videos if video.clip), None)
        self._with_clip = with_clip
        self._clip_width = feature_width(clip) if clip and with_clip else 0

    def batch(self, crops: Sequence[_Crop]) -> Batch:
        """Read one batch."""
        longest = max((crop.length for crop in crops), default=0)
        shape = (len(crops), longest)
        i3d = None if self._i3d_width is None else torch.zeros(*shape, self._i3d_width)
        clip = torch.zeros(*shape, self._clip_width) if self._with_clip else None
        for row, crop in enumerate(crops):
            video, stop = self.videos[crop.index], crop.start + crop.length
            if i3d is not None:
                rows = _as_wide(read_features(video, crop.start, stop), i3d.shape[2], video, "I3D")
                if len(rows) != crop.length:
                    raise WtalError(
                        f"video {video.id}: its I3D features end at row {crop.start + len(rows)}, there were "
                        f"{crop.total} when they were opened; files must not change while they are used"
                    )
                i3d[row, : crop.length] = torch.from_numpy(rows)
            if clip is not None:
                rows = _as_wide(read_aligned_clip(video, crop.total, crop.start, stop), clip.shape[2], video, "CLIP")
                clip[row, : crop.length] = torch.from_numpy(rows)
        labels = np.zeros((len(crops), len(self._data.classes)), np.float32)
        for row, crop in enumerate(crops):
            labels[row] = self._data.multi_hot(self.videos[crop.index])
        return Batch(
            i3d,
            clip,
            lengths=torch.tensor([crop.length for crop in crops], dtype=torch.int64),
            labels=torch.from_numpy(labels),
            index=torch.tensor([crop.index for crop in crops], dtype=torch.int64),
            start=torch.tensor([crop.start for crop in crops], dtype=torch.int64),
        )


def _as_wide(rows: np.ndarray, width: int, video: Video, kind: str) -> np.ndarray:
    if rows.shape[1] != width:
        raise WtalError(
            f"video {video.id}: its {kind} features are {rows.shape[1]} wide, expected {width} as in other videos"
        )
    return rows
