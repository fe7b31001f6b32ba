"""Batches of videos: random crops for training, whole videos for inference, made ahead in a thread."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wtal.config import BatchConfig
from wtal.data.features import feature_lengths, feature_width, read_aligned_clip, read_features
from wtal.data.video import Video, VideoSet
from wtal.errors import WtalError


@dataclass(frozen=True)
class Batch:
    """Videos or crops of them, padded with zeros to the longest.

    Attributes:
        i3d: ``[B, T, Di]`` float32, None where it was not asked for.
        clip: ``[B, T, Dc]`` float32 on the I3D snippets, None where it was not asked for.
        lengths: ``[B]`` int64, snippets that are not padding.
        labels: ``[B, C]`` float32, zeros and ones.
        index: ``[B]`` int64, places among the videos that the batches are made of.
        start: ``[B]`` int64, first snippet of the crop.
    """

    i3d: Tensor | None
    clip: Tensor | None
    lengths: Tensor
    labels: Tensor
    index: Tensor
    start: Tensor

    def to(self, device: str | torch.device) -> Batch:
        """The same on another device."""
        moved: dict[str, Any] = {
            name: None if tensor is None else tensor.to(device) for name, tensor in vars(self).items()
        }
        return Batch(**moved)


class TrainingBatches:
    """An epoch's batches for every epoch: all videos in random order, each cropped at a random place.

    Order and crops depend on the seed, the epoch and the video's id alone, so that a resumed run needs no state.

    Args:
        data: for the classes.
        videos: the training videos.
        batch: size and crop length.
        seed: of order and crops.
        with_i3d: read I3D features.
        with_clip: read CLIP features; a video without is an error then.
    """

    def __init__(
        self,
        data: VideoSet,
        videos: Sequence[Video],
        batch: BatchConfig,
        seed: int,
        with_i3d: bool = True,
        with_clip: bool = True,
    ) -> None:
        self._reader = _Reader(data, videos, with_i3d, with_clip)
        self._batch = batch
        self._seed = seed
        self._lengths = feature_lengths(videos)

    def __len__(self) -> int:
        """Batches an epoch; the last may be partial."""
        return -(-self.videos // self._batch.size)

    @property
    def videos(self) -> int:
        """Videos an epoch, one that comes twice counted twice."""
        return self._batch.steps_per_epoch * self._batch.size or len(self._lengths)

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from batch ``first`` on.

        Every video is in one of them, or in as many as any other (give or take one) where steps are asked for.

        Raises:
            WtalError: a video's features are missing or malformed.
        """
        random = np.random.default_rng([self._seed, number])
        crops: list[_Crop] = []
        for again in range(-(-self.videos // len(self._lengths))):
            crops += [self._crop(int(index), number, again) for index in random.permutation(len(self._lengths))]
        crops = crops[: self.videos]
        size = self._batch.size
        return _ahead(self._reader.batch(crops[at : at + size]) for at in range(first * size, len(crops), size))

    def _crop(self, index: int, number: int, again: int) -> _Crop:
        total = int(self._lengths[index])
        length = min(total, self._batch.snippets)
        video = int.from_bytes(hashlib.sha256(self._reader.videos[index].id.encode()).digest()[:8], "big")
        stream = [self._seed, number, video, *([again] if again else [])]
        start = int(np.random.default_rng(stream).integers(total - length + 1))
        return _Crop(index, start, length, total)


def whole_videos(
    data: VideoSet,
    videos: Sequence[Video],
    batch_size: int,
    with_i3d: bool = True,
    with_clip: bool = True,
    snippets: int | None = None,
) -> Iterator[Batch]:
    """Every video once and whole, longest first, so that little is padding and memory is short at once or never.

    Args:
        data: for the classes.
        videos: which videos.
        batch_size: at most this many videos a batch.
        with_i3d: read I3D features.
        with_clip: read CLIP features.
        snippets: at most this many snippets a batch, padding included, or one video; None: any number.

    Raises:
        WtalError: a video's features are missing or malformed.
    """
    reader = _Reader(data, videos, with_i3d, with_clip)
    lengths = feature_lengths(videos)
    order = np.argsort(-lengths, kind="stable")
    crops = [_Crop(int(index), 0, int(lengths[index]), int(lengths[index])) for index in order]

    def batches() -> Iterator[Batch]:
        first = 0
        while first < len(crops):
            size = batch_size if snippets is None else max(1, min(batch_size, snippets // crops[first].length))
            yield reader.batch(crops[first : first + size])
            first += size

    return _ahead(batches())


def in_parts(
    data: VideoSet,
    video: Video,
    length: int,
    size: int,
    overlap: int,
    with_i3d: bool = True,
    with_clip: bool = True,
) -> Iterator[tuple[Batch, int, int]]:
    """One long video in parts that overlap, only one of which is in memory.

    Args:
        data: for the classes.
        video: the video.
        length: its snippets.
        size: each part stands for this many snippets, the last for the rest.
        overlap: and begins and ends as many snippets earlier and later, where the video does.
        with_i3d: read I3D features.
        with_clip: read CLIP features.

    Returns:
        batches of one part each, and the half-open range of snippets that the part stands for.
    """
    reader = _Reader(data, (video,), with_i3d, with_clip)
    for first in range(0, length, size):
        last = min(first + size, length)
        start, stop = max(0, first - overlap), min(length, last + overlap)
        yield reader.batch([_Crop(0, start, stop - start, length)]), first, last


def statistics(videos: Iterable[Video]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each I3D dimension over all snippets of ``videos``: two ``[Di]`` float64.

    One pass over the files; moments are joined as in Chan, Golub and LeVeque (1979).
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
    """Snippets ``[start, start + length)`` of the ``total`` of one video."""

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
        longest = max(crop.length for crop in crops)
        shape = (len(crops), longest)
        i3d = None if self._i3d_width is None else torch.zeros(*shape, self._i3d_width)
        clip = torch.zeros(*shape, self._clip_width) if self._with_clip else None
        for row, crop in enumerate(crops):
            video, stop = self.videos[crop.index], crop.start + crop.length
            if i3d is not None:
                rows = _as_wide(read_features(video, crop.start, stop), i3d.shape[2], video, "I3D")
                i3d[row, : crop.length] = torch.from_numpy(rows)
            if clip is not None:
                rows = _as_wide(read_aligned_clip(video, crop.total, crop.start, stop), clip.shape[2], video, "CLIP")
                clip[row, : crop.length] = torch.from_numpy(rows)
        labels = np.stack([self._data.multi_hot(self.videos[crop.index]) for crop in crops])
        return Batch(
            i3d,
            clip,
            lengths=torch.tensor([crop.length for crop in crops]),
            labels=torch.from_numpy(labels),
            index=torch.tensor([crop.index for crop in crops]),
            start=torch.tensor([crop.start for crop in crops]),
        )


def _as_wide(rows: np.ndarray, width: int, video: Video, kind: str) -> np.ndarray:
    if rows.shape[1] != width:
        raise WtalError(
            f"video {video.id}: its {kind} features are {rows.shape[1]} wide, expected {width} as in other videos"
        )
    return rows


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, the next made in a thread while the last is used.

    What the thread raises is raised here. The thread ends with the iteration, also with one that is given up.
    """
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=1)
    given_up = threading.Event()

    def make() -> None:
        end: BaseException | None = None
        try:
            for batch in batches:
                ready.put(batch)
                if given_up.is_set():
                    return
        except BaseException as error:
            end = error
        ready.put(end)

    maker = threading.Thread(target=make, name="wtal-batches", daemon=True)
    maker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        given_up.set()
        # Making room lets the thread put what it holds, and then it sees that nobody waits.
        while maker.is_alive():
            try:
                ready.get_nowait()
            except queue.Empty:
                maker.join(0.01)
