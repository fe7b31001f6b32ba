"""Reading one video's features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wtal.data.features import feature_lengths, feature_width, read_clip, read_features
from wtal.data.timebase import Timebase
from wtal.data.video import Video
from wtal.errors import WtalError

GRID = Timebase(25)


def video(*i3d: Path, clip: Path | None = None) -> Video:
    return Video("one", "train", (), GRID, i3d, clip)


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
