"""Batches: every video, the right rows, the same again, and no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.data import batches as module
from wtal.data.batches import Batch, TrainingBatches, statistics, whole_videos
from wtal.data.clip_alignment import align
from wtal.data.features import read_clip, read_features
from wtal.data.timebase import Timebase
from wtal.data.video import Video, VideoSet
from wtal.errors import WtalError
from wtal.settings.config import BatchConfig

LENGTHS = (7, 3, 12, 1, 9, 5, 20)


def make(folder: Path) -> VideoSet:
    """Row t of video v holds (100 v + t) in column 0."""
    videos = []
    for index, length in enumerate(LENGTHS):
        rows = np.zeros((length, 3), np.float32)
        rows[:, 0] = 100 * index + np.arange(length)
        rows[:, 1:] = np.random.default_rng(index).normal(size=(length, 2))
        np.save(folder / f"i{index}.npy", rows)
        np.save(folder / f"c{index}.npy", np.random.default_rng(index).normal(size=(length // 2 + 1, 2)))
        paths = (folder / f"i{index}.npy",), folder / f"c{index}.npy"
        videos.append(Video(f"v{index}", "train", ("a",) if index % 2 else ("a", "b"), Timebase(25), *paths))
    return VideoSet("test", "own", ("a", "b"), tuple(videos))


@pytest.fixture
def data(tmp_path: Path) -> VideoSet:
    return make(tmp_path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> VideoSet:
    return make(tmp_path_factory.mktemp("batches"))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "wtal-batches"]


def test_a_file_that_became_shorter_is_named(data: VideoSet) -> None:
    lengths = tuple(replace(video, snippets=length) for video, length in zip(data.videos, LENGTHS, strict=True))
    np.save(data.videos[2].i3d[0], np.zeros((8, 3), np.float32))
    with pytest.raises(WtalError, match="video v2: its I3D features end at row 8, there were 12 when they were opened"):
        list(whole_videos(data, lengths, 2))


def same(left: Batch, right: Batch) -> bool:
    pairs = zip(vars(left).values(), vars(right).values(), strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def check_rows(data: VideoSet, batch: Batch) -> None:
    assert batch.i3d.shape[:2] == (len(batch.index), int(batch.lengths.max()))
    assert batch.clip is None or batch.clip.shape[:2] == batch.i3d.shape[:2]
    for row, (index, start, length) in enumerate(
        zip(batch.index.tolist(), batch.start.tolist(), batch.lengths.tolist(), strict=True)
    ):
        video = data.videos[index]
        i3d = read_features(video)
        clip = align(read_clip(video), len(i3d))
        assert batch.i3d[row, :length].tolist() == i3d[start : start + length].tolist()
        assert not batch.i3d[row, length:].any()
        if batch.clip is not None:
            np.testing.assert_allclose(batch.clip[row, :length], clip[start : start + length], atol=1e-6)
            assert not batch.clip[row, length:].any()
        assert batch.labels[row].tolist() == data.multi_hot(video).tolist()


@settings(deadline=None, max_examples=25)
@given(size=st.integers(1, 9), snippets=st.integers(1, 25), seed=st.integers(0, 2**31), epoch=st.integers(0, 10**6))
def test_an_epoch_holds_every_video_once(size: int, snippets: int, seed: int, epoch: int, kept: VideoSet) -> None:
    training = TrainingBatches(kept, kept.videos, BatchConfig(size=size, snippets=snippets), seed)
    found = list(training.epoch(epoch))
    assert len(found) == len(training) == -(-len(LENGTHS) // size)
    assert all(len(batch.index) == size for batch in found[:-1])
    assert sorted(torch.cat([batch.index for batch in found]).tolist()) == list(range(len(LENGTHS)))
    for batch in found:
        check_rows(kept, batch)
        for index, length in zip(batch.index.tolist(), batch.lengths.tolist(), strict=True):
            assert length == min(LENGTHS[index], snippets)
    again = TrainingBatches(kept, kept.videos, BatchConfig(size=size, snippets=snippets), seed)
    assert all(same(left, right) for left, right in zip(found, again.epoch(epoch), strict=True))


def test_steps_per_epoch_go_evenly_over_the_videos(kept: VideoSet) -> None:
    videos = len(kept.videos)
    for steps, size in ((1, 1), (4, videos), (5, 2), (7, 3)):
        training = TrainingBatches(kept, kept.videos, BatchConfig(size=size, snippets=4, steps_per_epoch=steps), 3)
        found = list(training.epoch(2))
        assert len(training) == len(found) == steps
        assert {len(batch.lengths) for batch in found} == {size}
        times = np.bincount(torch.cat([batch.index for batch in found]).numpy(), minlength=videos)
        assert times.max() - times.min() <= 1
        assert training.videos == times.sum()


@settings(deadline=None, max_examples=15)
@given(size=st.integers(1, 9), orders=st.integers(2, 4), seed=st.integers(0, 2**31), first=st.integers(0, 3))
@pytest.mark.parametrize("steps", [0, 5])
def test_every_order_is_an_epoch_of_its_own(
    steps: int, size: int, orders: int, seed: int, first: int, kept: VideoSet
) -> None:
    config = BatchConfig(size=size, snippets=3, steps_per_epoch=steps)
    alone = list(TrainingBatches(kept, kept.videos, config, seed).epoch(3))
    training = TrainingBatches(kept, kept.videos, config, seed, orders=orders)
    found = list(training.epoch(3))
    each = [found[order::orders] for order in range(orders)]
    assert len(found) == orders * len(training) == orders * len(alone)
    assert all(same(left, right) for left, right in zip(each[0], alone, strict=True))
    for order in each:
        times = np.bincount(torch.cat([batch.index for batch in order]).numpy(), minlength=len(LENGTHS))
        assert times.max() - times.min() <= (steps > 0)
        assert [len(batch.index) for batch in order] == [len(batch.index) for batch in alone]
        assert all((batch.clip is None) == (order is not each[0]) for batch in order)
        for batch in order:
            check_rows(kept, batch)
    resumed = list(training.epoch(3, min(first, len(training))))
    assert all(same(left, right) for left, right in zip(resumed, found[orders * first :], strict=True))


def test_orders_differ_in_videos_and_crops(kept: VideoSet) -> None:
    config = BatchConfig(size=len(LENGTHS), snippets=2)
    drawn = [
        (batch.index.tolist(), sorted(zip(batch.index.tolist(), batch.start.tolist(), strict=True)))
        for epoch in range(3)
        for batch in TrainingBatches(kept, kept.videos, config, 1, orders=4).epoch(epoch)
    ]
    assert len({str(index) for index, _ in drawn}) == len({str(starts) for _, starts in drawn}) == 12


def test_crops_depend_on_the_video_not_on_its_place(data: VideoSet) -> None:
    config = BatchConfig(size=2, snippets=4)

    def starts(videos: tuple[Video, ...]) -> dict[str, int]:
        made = TrainingBatches(data, videos, config, 5).epoch(3)
        return {videos[i].id: s for batch in made for i, s in zip(batch.index, batch.start.tolist(), strict=True)}

    everything = starts(data.videos)
    assert {video.id for video in data.videos} == set(everything)
    assert starts(data.videos[::-1]) == everything
    assert starts(data.videos[:3]).items() <= everything.items()


def test_seed_and_epoch_change_order_and_crops(data: VideoSet) -> None:
    config = BatchConfig(size=7, snippets=2)

    def drawn(seed: int, epoch: int) -> tuple[list[int], list[int]]:
        batch = next(iter(TrainingBatches(data, data.videos, config, seed).epoch(epoch)))
        return batch.index.tolist(), batch.start.tolist()

    assert len({str(drawn(seed, epoch)) for seed in range(4) for epoch in range(4)}) == 16


def test_every_place_of_a_crop_comes_up(data: VideoSet) -> None:
    training = TrainingBatches(data, data.videos[:1], BatchConfig(size=1, snippets=4), 0, with_clip=False)
    assert {int(next(iter(training.epoch(epoch))).start[0]) for epoch in range(60)} == {0, 1, 2, 3}


@pytest.mark.parametrize("size", [1, 3, 100])
def test_whole_videos_longest_first(data: VideoSet, size: int) -> None:
    found = list(whole_videos(data, data.videos, size))
    assert torch.cat([batch.lengths for batch in found]).tolist() == sorted(LENGTHS, reverse=True)
    assert sorted(torch.cat([batch.index for batch in found]).tolist()) == list(range(len(LENGTHS)))
    for batch in found:
        assert not batch.start.any()
        check_rows(data, batch)
    assert list(whole_videos(data, (), size)) == []


def test_only_the_features_asked_for_are_read(data: VideoSet) -> None:
    without = [replace(video, clip=None) for video in data.videos]
    batch = next(iter(whole_videos(data, without, 2, with_clip=False)))
    assert batch.clip is None
    assert batch.i3d.dtype == torch.float32
    assert next(iter(whole_videos(data, data.videos, 2, with_i3d=False))).i3d is None
    with pytest.raises(WtalError, match="video v6: has no CLIP feature file"):
        list(whole_videos(data, without, 2))


def test_to_keeps_everything(data: VideoSet) -> None:
    batch = next(iter(whole_videos(data, data.videos, 2)))
    assert same(batch.to("cpu"), batch)
    assert batch.to("meta").clip.device.type == "meta"
    assert replace(batch, clip=None).to("cpu").clip is None


def test_a_fault_in_the_thread_is_raised_here(data: VideoSet) -> None:
    bad = np.load(data.videos[3].i3d[0])
    bad[0, 1] = np.nan
    np.save(data.videos[3].i3d[0], bad)
    with pytest.raises(WtalError, match=r"video v3: .*nan in row 0, column 1"):
        list(TrainingBatches(data, data.videos, BatchConfig(size=2, snippets=4), 0).epoch(0))


@pytest.mark.parametrize("kind", ["i3d", "clip"])
def test_features_of_another_width_are_named(data: VideoSet, kind: str) -> None:
    path = data.videos[4].i3d[0] if kind == "i3d" else data.videos[4].clip
    np.save(path, np.ones((LENGTHS[4], 5), np.float32))
    with pytest.raises(WtalError, match=f"video v4: its {kind.upper()} features are 5 wide, expected [23]"):
        list(TrainingBatches(data, data.videos, BatchConfig(size=2, snippets=4), 0).epoch(0))
    if kind == "i3d":
        with pytest.raises(WtalError, match="video v4"):
            statistics(data.videos)


def test_an_iteration_given_up_ends_its_thread(data: VideoSet) -> None:
    config = BatchConfig(size=1, snippets=4)
    given_up = TrainingBatches(data, data.videos, config, 0).epoch(0)
    next(given_up)
    given_up.close()
    thrown_into = TrainingBatches(data, data.videos, config, 0).epoch(0)
    next(thrown_into)
    with pytest.raises(KeyboardInterrupt):
        thrown_into.throw(KeyboardInterrupt)
    TrainingBatches(data, data.videos, config, 0).epoch(0)  # never begun


def test_two_batches_are_made_ahead_and_no_more(monkeypatch: pytest.MonkeyPatch, data: VideoSet) -> None:
    made = []
    read = module._Reader.batch
    monkeypatch.setattr(module._Reader, "batch", lambda self, crops: made.append(0) or read(self, crops))
    running = whole_videos(data, data.videos, 1)
    for used in range(1, 5):
        next(running)
        assert len(made) <= used + 2
    running.close()


def test_statistics_are_those_of_all_snippets(data: VideoSet) -> None:
    rows = np.concatenate([read_features(video) for video in data.videos]).astype(np.float64)
    mean, deviation = statistics(data.videos)
    assert mean.dtype == deviation.dtype == np.float64
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(deviation, rows.std(0), rtol=1e-12)
    with pytest.raises(ValueError, match="videos is empty"):
        statistics([])
