"""Reading one video's features, and CLIP onto the I3D grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.data.features import align, feature_lengths, feature_width, read_aligned_clip, read_clip, read_features
from wtal.data.timebase import Timebase
from wtal.data.video import Video
from wtal.errors import WtalError

GRID = Timebase(25)


def video(*i3d: Path, clip: Path | None = None, clip_fps: float | None = None, grid: Timebase = GRID) -> Video:
    return Video("one", "train", (), grid, i3d, clip, clip_fps=clip_fps)


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def message(function, *arguments) -> str:
    with pytest.raises(WtalError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_parts_stand_side_by_side(tmp_path: Path, dtype: str) -> None:
    rgb, flow = np.arange(12).reshape(4, 3).astype(dtype), -np.arange(8).reshape(4, 2).astype(dtype)
    one = video(saved(tmp_path / "rgb.npy", rgb), saved(tmp_path / "flow.npy", flow))
    features = read_features(one)
    assert features.dtype == np.float32
    assert features.tolist() == np.hstack([rgb, flow]).tolist()
    assert read_features(one, 1, 3).tolist() == features[1:3].tolist()
    assert read_features(one, 3, 99).tolist() == features[3:].tolist()
    assert feature_lengths([one, one]).tolist() == [4, 4]
    assert feature_width(one.i3d) == 5
    assert feature_width(one.i3d[0]) == 3


def test_flow_may_be_one_row_shorter_and_no_more(tmp_path: Path) -> None:
    rgb = saved(tmp_path / "rgb.npy", np.ones((5, 2), np.float32))
    shorter = video(rgb, saved(tmp_path / "flow.npy", np.ones((4, 2), np.float32)))
    assert read_features(shorter).shape == (4, 4)
    assert feature_lengths([shorter]).tolist() == [4]
    text = message(read_features, video(rgb, saved(tmp_path / "flow.npy", np.ones((3, 2), np.float32))))
    assert "video one" in text
    assert "rgb.npy 5 and" in text
    assert "flow.npy 3 rows" in text


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((0, 4), np.float32), "at least one row"),
        (np.zeros((4, 0), np.float32), "at least one row"),
        (np.zeros(4, np.float32), "expected floating point [T, D]"),
        (np.zeros((1, 4, 2), np.float32), "expected floating point [T, D]"),
        (np.zeros((4, 2), np.int64), "expected floating point [T, D]"),
        (np.array([[0, np.nan], [0, 0]], np.float32), "nan in row 0, column 1 (1 such values)"),
        (np.array([[0, 0], [-np.inf, np.inf]], np.float16), "-inf in row 1, column 0 (2 such values)"),
    ],
)
def test_malformed_features_name_file_video_and_what_was_expected(
    tmp_path: Path, array: np.ndarray, expected: str
) -> None:
    path = saved(tmp_path / "one.npy", array)
    for text in (message(read_features, video(path)), message(read_clip, video(path, clip=path))):
        assert str(path) in text
        assert "video one" in text
        assert expected in text


def test_missing_and_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / "one.npy"
    assert f"video one: {path}: no such file" in message(read_features, video(path))
    saved(path, np.ones((4, 4), np.float32))
    path.write_bytes(path.read_bytes()[:-1])
    assert f"video one: {path}: is truncated" in message(read_features, video(path))
    assert "no I3D" in message(read_features, video())
    assert "no CLIP" in message(read_clip, video(path))


def test_a_crop_is_checked_and_named_by_its_place_in_the_file(tmp_path: Path) -> None:
    array = np.zeros((9, 2), np.float32)
    array[7, 1] = np.nan
    one = video(saved(tmp_path / "one.npy", array))
    assert read_features(one, 0, 7).shape == (7, 2)
    assert "row 7, column 1" in message(read_features, one, 5, 9)


def test_large_finite_values_are_features(tmp_path: Path) -> None:
    array = np.full((3, 2), 3e38, np.float32)
    assert (read_features(video(saved(tmp_path / "one.npy", array))) == array).all()
    double = np.full((3, 2), 1.5e308)
    assert "expected finite" in message(read_features, video(saved(tmp_path / "one.npy", double)))


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
    one = video(clip=path, clip_fps=fps)
    whole = read_aligned_clip(one, length)
    assert whole.shape == (length, 2)
    np.testing.assert_allclose(read_aligned_clip(one, length, start, stop), whole[start:stop], atol=1e-6)
    if fps is None:
        np.testing.assert_allclose(whole, align(features, length), atol=1e-6)


def test_clip_of_a_known_rate_is_looked_up_by_second(tmp_path: Path) -> None:
    # Row k holds its own second, at 2 frames a second: a snippet's features are then its centre's second.
    seconds = (np.arange(40) / 2).astype(np.float32)[:, None]
    for grid in (Timebase(25), Timebase(29.97, 4, 16)):
        one = video(clip=saved(tmp_path / "clip.npy", seconds), clip_fps=2.0, grid=grid)
        expected = np.minimum(grid.center(np.arange(60)), 19.5)
        np.testing.assert_allclose(read_aligned_clip(one, 60)[:, 0], expected, atol=1e-5)


def test_one_row_of_clip_serves_all_snippets(tmp_path: Path) -> None:
    one = video(clip=saved(tmp_path / "clip.npy", np.array([[1.0, 2.0]], np.float16)))
    assert read_aligned_clip(one, 3).tolist() == [[1, 2]] * 3
