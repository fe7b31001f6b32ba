"""CLIP features on the I3D grid, against interpolation by NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.data.clip_alignment import align, read_aligned_clip
from wtal.data.timebase import Timebase
from wtal.data.video import Video

GRID = Timebase(25)


def video(clip: Path, clip_fps: float | None = None, grid: Timebase = GRID) -> Video:
    return Video("one", "train", (), grid, (), clip, clip_fps=clip_fps)


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def reference(features: np.ndarray, length: int) -> np.ndarray:
    """Both lengths cover [0, 1]; a row's centre is (k + .5) / rows. np.interp clamps at the ends."""
    centers, wanted = (np.arange(len(features)) + 0.5) / len(features), (np.arange(length) + 0.5) / length
    return np.stack([np.interp(wanted, centers, column) for column in features.T.astype(np.float64)], axis=1)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_align_is_linear_interpolation_by_time(rows: int, length: int, seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(rows, 3)).astype(np.float32)
    aligned = align(features, length)
    assert aligned.shape == (length, 3)
    assert aligned.dtype == np.float32
    np.testing.assert_allclose(aligned, reference(features, length), atol=2e-6)


def test_align_of_equal_lengths_is_bitwise_the_same() -> None:
    features = np.array([[-0.0, 1e-45], [np.float32(np.pi), -3e38]], np.float32)
    assert align(features, 2).tobytes() == features.tobytes()


@settings(deadline=None)
@given(rows=st.integers(1, 30), length=st.integers(1, 30), data=st.data())
def test_a_crop_of_clip_is_the_crop_of_the_whole(rows: int, length: int, data, tmp_path_factory) -> None:
    start = data.draw(st.integers(0, length))
    stop = data.draw(st.integers(start, length))
    fps = data.draw(st.none() | st.floats(0.1, 30))
    features = np.random.default_rng(rows).normal(size=(rows, 2)).astype(np.float32)
    path = saved(tmp_path_factory.getbasetemp() / "crop.npy", features)
    one = video(path, clip_fps=fps)
    whole = read_aligned_clip(one, length)
    assert whole.shape == (length, 2)
    np.testing.assert_allclose(read_aligned_clip(one, length, start, stop), whole[start:stop], atol=1e-6)
    if fps is None:
        np.testing.assert_allclose(whole, align(features, length), atol=1e-6)


def test_clip_of_a_known_rate_is_looked_up_by_second(tmp_path: Path) -> None:
    # Row k holds its own second, at 2 frames a second: a snippet's features are then its centre's second.
    seconds = (np.arange(40) / 2).astype(np.float32)[:, None]
    for grid in (Timebase(25), Timebase(29.97, 4, 16)):
        one = video(saved(tmp_path / "clip.npy", seconds), clip_fps=2.0, grid=grid)
        expected = np.minimum(grid.center(np.arange(60)), 19.5)
        np.testing.assert_allclose(read_aligned_clip(one, 60)[:, 0], expected, atol=1e-5)


def test_one_row_of_clip_serves_all_snippets(tmp_path: Path) -> None:
    one = video(saved(tmp_path / "clip.npy", np.array([[1.0, 2.0]], np.float16)))
    assert read_aligned_clip(one, 3).tolist() == [[1, 2]] * 3
