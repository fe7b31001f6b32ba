"""Parts of the training videos for cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtal.data.folds import fold_of, parse_fold, parts
from wtal.data.open import open_data
from wtal.errors import WtalError
from wtal.runs.setup import Setup
from wtal.runs.videos import open_videos
from wtal.settings.config import ScheduleConfig


@given(st.sets(st.text(min_size=1), min_size=2, max_size=60), st.integers(2, 9), st.randoms())
def test_parts_are_even_and_follow_from_the_ids(ids: set[str], folds: int, random) -> None:
    found = parts(ids, folds)
    shuffled = sorted(ids)
    random.shuffle(shuffled)
    assert parts(shuffled, folds) == found
    sizes = [[*found.values()].count(number) for number in range(1, folds + 1)]
    assert sum(sizes) == len(ids)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["", "2", "0/5", "6/5", "1/1", "-1/5", "1/5/2", "a/b", "1 /5", "1/5\n", "²/5"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(WtalError, match="expected a part and how many there are, such as 2/5"):
        parse_fold(text)
    with pytest.raises(WtalError, match="such as 2/5"):
        Setup(fold=text)


def test_each_training_video_is_held_out_once(tmp_path: Path, write_own: Callable[..., Path], monkeypatch) -> None:
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))
    toml = write_own(tmp_path / "mine", extra='train_segments = "train_segments.csv"')
    data = open_data(str(toml))
    train = {video.id: video for video in data.subset("train")}
    held_out: list[str] = []
    for number in (1, 2, 3):
        part = open_videos(Setup(dataset=str(toml), fold=f"{number}/3"), ScheduleConfig())
        ids = [video.id for video in part]
        assert set(ids) == train.keys()  # and none of the data set's own test videos
        here = [video.id for video in part.subset("test")]
        held_out += here
        assert here
        assert all(video.instances == train[video.id].instances is not None for video in part)
        assert f"part {number}/3" in part.name
    assert sorted(held_out) == sorted(train)
    with pytest.raises(WtalError, match=r"mine: 8 parts of 7 training videos, expected at least one video each"):
        fold_of(data, "1/8")


def test_what_is_said_of_the_test_videos_is_not_said_of_a_part(tmp_path: Path, write_own, monkeypatch) -> None:
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))
    toml = write_own(tmp_path / "mine", testing=0, extra='train_segments = "train_segments.csv"')
    (note,) = open_data(str(toml)).test_notes
    assert "no test video, so training can tell no mAP" in note
    assert not open_videos(Setup(dataset=str(toml), fold="1/2"), ScheduleConfig()).test_notes


def test_held_out_videos_without_annotation_are_not_measured_on(tmp_path: Path, write_own, monkeypatch) -> None:
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))
    toml = write_own(tmp_path / "mine")
    with pytest.raises(WtalError, match=r"no training video in part 1/2 has temporal annotation.*'train_segments'"):
        fold_of(open_data(str(toml)), "1/2")
    toml.write_text(toml.read_text() + 'train_segments = "some.csv"\n')
    lines = toml.with_name("train_segments.csv").read_text().splitlines()
    some = {row.split(",")[0] for row in lines[1:]} - {"v01", "v04"}
    toml.with_name("some.csv").write_text("\n".join([lines[0], *(r for r in lines[1:] if r.split(",")[0] in some)]))
    data = open_data(str(toml))
    found = [fold_of(data, f"{number}/2") for number in (1, 2)]
    assert {video.id for part in found for video in part.subset("test")} == some
    # they are trained on where they are not held out
    assert {video.id for part in found for video in part.subset("train")} == {
        video.id for video in data.subset("train")
    }
