"""One bad feature file among many: all are named at once, and --allow-missing counts them as missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from wtal.data import feature_index
from wtal.data.cache import cache_root
from wtal.data.feature_index import survey, with_lengths
from wtal.data.open import open_data
from wtal.errors import WtalError

BAD = ("empty", "nan", "truncated", "flat", "noise")


def spoil(path: Path, how: str) -> None:
    rows = np.load(path)
    if how == "empty":
        np.save(path, rows[:0])
    elif how == "nan":
        rows[1, 0] = np.nan
        np.save(path, rows)
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-4])
    elif how == "flat":
        np.save(path, rows[0])
    else:
        path.write_bytes(b"not an array")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A dataset.toml of seven videos; a and b are for testing."""
    random = np.random.default_rng(0)
    for folder, width in (("i3d", 4), ("clip", 2)):
        (tmp_path / folder).mkdir()
        for video in "abcdefg":
            np.save(tmp_path / folder / f"{video}.npy", random.normal(size=(9, width)).astype(np.float32))
    (tmp_path / "labels.csv").write_text("video,label\n" + "".join(f"{video},Hop\n" for video in "abcdefg"))
    (tmp_path / "dataset.toml").write_text(
        'name = "mine"\nclasses = ["Hop"]\ni3d = "i3d"\nclip = "clip"\nlabels = "labels.csv"\nfps = 25\n'
        'test = ["a", "b"]\n'
    )
    return tmp_path / "dataset.toml"


@pytest.mark.parametrize("folder", ["i3d", "clip"])
def test_all_bad_files_are_named_at_once_and_count_as_missing(own: Path, folder: str) -> None:
    bad = dict(zip("bcdef", BAD, strict=True))
    for video, how in bad.items():
        spoil(own.parent / folder / f"{video}.npy", how)
    with pytest.raises(WtalError) as caught:
        open_data(str(own))
    told = str(caught.value)
    assert "\n" not in told
    assert told.startswith("the features of 5 of 7 videos cannot be used: video b: ")
    assert told.endswith("; --allow-missing leaves them out")
    for video in bad:
        assert told.count(str(own.parent / folder / f"{video}.npy")) == 1
    for _ in range(2):  # the second time from memory
        opened = open_data(str(own), allow_missing=True)
        assert [video.id for video in opened] == ["a", "g"]
        assert opened.missing == ("b", "c", "d", "e", "f")
        (note,) = opened.notes
        assert note.startswith("left out, as their features cannot be used: ")
        assert all(str(own.parent / folder / f"{video}.npy") in note for video in bad)
        survey(opened)


def test_the_survey_names_all_that_are_not_finite(own: Path) -> None:
    for video in "acg":
        spoil(own.parent / "i3d" / f"{video}.npy", "nan")
    with pytest.raises(WtalError, match=r"the features of 3 of 7 videos cannot be used: video a.*video c.*video g"):
        survey(open_data(str(own)))


def test_one_bad_file_is_told_in_its_own_words(own: Path) -> None:
    spoil(own.parent / "i3d" / "c.npy", "empty")
    told = r"^video c: \S+/i3d/c\.npy: shape \[0, 4\], expected at least one row and column; --allow-missing leaves it"
    with pytest.raises(WtalError, match=told):
        open_data(str(own))


def test_without_one_good_file_there_is_no_data_set(own: Path) -> None:
    for video in "abcdefg":
        spoil(own.parent / "i3d" / f"{video}.npy", "empty")
    with pytest.raises(WtalError, match=r"the features of 7 of 7 videos cannot be used: .*row and column$"):
        open_data(str(own), allow_missing=True)


def test_the_last_test_video_left_out_is_told(own: Path) -> None:
    for video in "ab":
        spoil(own.parent / "i3d" / f"{video}.npy", "nan")
    notes = open_data(str(own), allow_missing=True).test_notes
    assert notes[-1] == "mine: no test video is left, so training can tell no mAP"


def test_what_was_finite_once_is_not_read_again(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = feature_index.time.time
    monkeypatch.setattr(feature_index.time, "time", lambda: real() + 3600)  # no file is young
    read: list[str] = []

    def check(video, i3d: bool) -> None:
        read.append(video.id)

    monkeypatch.setattr(feature_index, "check_features", check)
    for looked_into in (list("abcdefg"), []):
        read.clear()
        open_data(str(own), allow_missing=True)
        assert read == looked_into


def test_an_empty_entry_of_the_joint_file_is_named_by_that_file(
    content: Mapping[str, tuple], write_layout: Callable[..., Path]
) -> None:
    ids = list(content)
    content = {
        video: (subset, features[:0] if video == ids[2] else features, rows)
        for video, (subset, features, rows) in content.items()
    }
    root = write_layout("wtalc", content)
    joint = root / "Thumos14reduced-I3D-JOINTFeatures.npy"
    told = rf"^video {ids[2]}: {re.escape(str(joint))}, entry 2 \(in wtal's cache {re.escape(str(cache_root()))}\S+\): "
    with pytest.raises(WtalError, match=told + r"shape \[0, 6\], expected at least one row and column"):
        open_data("thumos14", root)
    opened = open_data("thumos14", root, allow_missing=True)
    assert opened.missing == (ids[2],)
    assert [video.id for video in opened] == [video for video in ids if video != ids[2]]


def test_a_value_that_is_not_finite_in_the_joint_file_is_named_by_that_file(
    content: Mapping[str, tuple], write_layout: Callable[..., Path]
) -> None:
    video = list(content)[1]
    content[video][1][3, 5] = np.inf
    root = write_layout("wtalc", content)
    opened = with_lengths(open_data("thumos14", root))
    with pytest.raises(WtalError, match=r"JOINTFeatures\.npy, entry 1 .*: inf in row 3, column 5"):
        survey(opened)
