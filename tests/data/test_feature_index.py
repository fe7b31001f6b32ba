"""What is remembered of feature files: never anything but what reading them again would give."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wtal.data import feature_index
from wtal.data.batches import statistics
from wtal.data.cache import cache_root
from wtal.data.feature_index import survey, with_lengths
from wtal.data.features import feature_lengths
from wtal.data.timebase import Timebase
from wtal.data.video import Video, VideoSet
from wtal.errors import WtalError

YEAR_2020 = 1_577_836_800


@pytest.fixture(autouse=True)
def an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is young, as nobody can set the time of change of an inode back."""
    real = time.time
    monkeypatch.setattr(feature_index.time, "time", lambda: real() + 3600)


@pytest.fixture
def data(tmp_path: Path) -> VideoSet:
    """Five videos, two of them for testing, in files that have not changed for years."""
    rng = np.random.default_rng(0)
    videos = []
    for number in range(5):
        paths = [tmp_path / f"{kind}{number}.npy" for kind in ("rgb", "flow", "clip")]
        for path, (rows, width) in zip(paths, [(9 - number, 3), (9 - number, 2), (7, 4)], strict=True):
            write(path, rng.standard_normal((rows, width)).astype(np.float32))
        subset = "test" if number in (1, 3) else "train"
        videos.append(Video(f"v{number}", subset, ("A",), Timebase(25, 16, 16), tuple(paths[:2]), paths[2]))
    return VideoSet("five", "own", ("A",), tuple(videos))


def write(path: Path, rows: np.ndarray, changed: int = YEAR_2020) -> None:
    np.save(path, rows)
    os.utime(path, (changed, changed))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which videos were looked into since this list was last cleared."""
    seen: list[str] = []

    def lengths(videos):
        seen.extend(video.id for video in videos)
        return feature_lengths(videos)

    def check(video, i3d):
        seen.append(video.id)
        real(video, i3d)

    real = feature_index.check_features
    monkeypatch.setattr(feature_index, "feature_lengths", lengths)
    monkeypatch.setattr(feature_index, "check_features", check)
    return seen


def test_lengths_are_those_of_the_files_and_read_once(data: VideoSet, opened: list[str]) -> None:
    expected = feature_lengths(data.videos).tolist()
    for looked_into in (["v0", "v1", "v2", "v3", "v4"], []):
        opened.clear()
        found = with_lengths(data)
        assert [video.snippets for video in found] == expected == [9, 8, 7, 6, 5]
        assert feature_lengths(found.videos).tolist() == expected
        assert opened == looked_into
    assert [video.clip_rows for video in found] == [7] * 5
    assert replace(found.videos[0], snippets=None, clip_rows=None) == data.videos[0]


def test_only_what_changed_is_opened_again(data: VideoSet, opened: list[str]) -> None:
    with_lengths(data)
    for part in (0, 1):
        write(data.videos[2].i3d[part], np.ones((20, 3 - part), np.float32), YEAR_2020 + 1)
    opened.clear()
    assert [video.snippets for video in with_lengths(data)] == [9, 8, 20, 6, 5]
    assert opened == ["v2"]


def test_a_file_that_was_just_written_is_not_believed(
    data: VideoSet, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be written again within a tick of the clock, and look the same."""
    monkeypatch.undo()
    monkeypatch.setenv("WTAL_CACHE", str(data.videos[0].i3d[0].parent / "cache"))
    for _ in range(2):
        with_lengths(data)
        assert not list(cache_root().glob("index/read-*"))
        survey(data)
    assert not list(cache_root().glob("index/read-*"))
    path = data.videos[0].i3d[0]
    now = path.stat().st_mtime_ns
    rows = np.load(path)
    rows[4, 1] = np.nan
    np.save(path, rows)
    os.utime(path, ns=(now, now))
    with pytest.raises(WtalError, match=r"video v0: .*rgb0.npy: nan in row 4, column 1"):
        survey(data)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("kind", ["i3d", "clip"])
def test_a_survey_finds_what_is_not_finite_in_any_video(data: VideoSet, number: int, kind: str) -> None:
    survey(data)
    video = data.videos[number]
    path = video.i3d[1] if kind == "i3d" else video.clip
    assert path is not None
    rows = np.load(path)
    rows[2, 0] = np.inf
    write(path, rows, YEAR_2020 + 5)
    with pytest.raises(WtalError, match=f"video v{number}: .*{path.name}: inf in row 2, column 0"):
        survey(data)


def test_a_survey_is_made_once(data: VideoSet, opened: list[str]) -> None:
    told: list[tuple[int, int]] = []
    expected = statistics(data.subset("train"))
    for looked_into in (["v1", "v3", "v0", "v2", "v4"], []):
        opened.clear()
        for found, wanted in zip(survey(data, lambda *n: told.append(n)), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
        assert opened == looked_into
    assert told == [(n, 5) for n in range(1, 6)]
    other = replace(data, videos=(replace(data.videos[0], subset="test"), *data.videos[1:]))
    assert (survey(other)[0] != expected[0]).any()


def test_a_file_of_the_same_size_and_time_is_another_one(data: VideoSet, opened: list[str]) -> None:
    """As a copy that keeps the time of its source."""
    with_lengths(data)
    survey(data)
    path = data.videos[0].i3d[0]
    rows = np.load(path)
    rows[2, 1] = np.nan
    other = path.with_suffix(".other")
    write(path.with_suffix(".npy.other.npy"), rows)
    path.with_suffix(".npy.other.npy").replace(other)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    with pytest.raises(WtalError, match=r"video v0: .*rgb0.npy: nan in row 2, column 1"):
        survey(data)


def test_a_path_may_be_said_from_anywhere(
    data: VideoSet, opened: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A relative path in another folder is another file."""
    videos = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "x.npy", np.ones((3 if name == "here" else 5, 2), np.float32))
    for name, rows in (("here", 3), ("there", 5)):
        monkeypatch.chdir(tmp_path / name)
        video = Video("v", "train", ("A",), Timebase(25, 16, 16), (Path("x.npy"),))
        videos.append(with_lengths(VideoSet("one", "own", ("A",), (video,))).videos[0])
        assert videos[-1].snippets == rows


@pytest.mark.parametrize("number", [0, 1])
def test_clip_of_another_width_is_named(data: VideoSet, number: int) -> None:
    survey(data)
    write(data.videos[number].clip, np.ones((7, 6 if number else 5), np.float32))
    with pytest.raises(WtalError, match=r"video v\d: its CLIP features are \d wide, expected \d as in other videos"):
        survey(data)


def test_another_width_is_named(data: VideoSet) -> None:
    write(data.videos[3].i3d[0], np.ones((6, 8), np.float32))
    with pytest.raises(WtalError, match="video v3: its I3D features are 10 wide, expected 5"):
        survey(data)


def test_several_of_another_width_are_counted(data: VideoSet) -> None:
    """The first video is one of them: expected is what most videos have."""
    for number, kind in ((0, 0), (3, 1)):
        write(data.videos[number].i3d[kind], np.ones((9 - number, 8 + number), np.float32))
    told = r"the I3D features of 2 of 5 videos have another width \(v0 10, v3 14\), expected 5 as in most videos"
    with pytest.raises(WtalError, match=told):
        survey(data)
    write(data.videos[4].clip, np.full((7, 4), np.nan, np.float32))
    with pytest.raises(WtalError, match="nan in row 0"):  # what cannot be used at all comes first
        survey(data)


def test_the_first_video_alone_of_another_width_is_named(data: VideoSet) -> None:
    write(data.videos[0].i3d[0], np.ones((9, 8), np.float32))
    with pytest.raises(WtalError, match="video v0: its I3D features are 10 wide, expected 5 as in other videos"):
        survey(data)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"\x80\x04K\x01."])
def test_a_damaged_cache_is_made_anew(data: VideoSet, damage: bytes) -> None:
    expected, lengths = survey(data), with_lengths(data)
    for path in (cache_root() / "index").iterdir():
        path.write_bytes(damage)
    assert with_lengths(data) == lengths
    np.testing.assert_array_equal(survey(data)[0], expected[0])


def test_a_cache_that_cannot_be_written_does_no_harm(
    data: VideoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "file"))
    assert with_lengths(data).videos[0].snippets == 9
    survey(data)


def test_a_missing_file_is_named(data: VideoSet) -> None:
    data.videos[4].i3d[0].unlink()
    with pytest.raises(WtalError, match=r"video v4: .*rgb4.npy: No such file"):
        with_lengths(data)
