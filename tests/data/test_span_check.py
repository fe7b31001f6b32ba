from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtal.data.span_check import check_spans
from wtal.data.timebase import Timebase
from wtal.data.video import Instance, Video, VideoSet
from wtal.errors import WtalError

GRID = Timebase(25, 16, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


def make(folder: Path, rows: list[tuple[int, float | None, float | None]], layout: str = "wtalc") -> VideoSet:
    """Videos of (snippets on disk, duration, end of the last action)."""
    videos = []
    for index, (snippets, duration, end) in enumerate(rows):
        path = folder / f"{snippets}.npy"
        if not path.exists():
            np.save(path, np.zeros((snippets, 1), np.float32))
        instances = None if end is None else (Instance(0.0, end / 2, "a"), Instance(end / 2, end, "a"))
        videos.append(Video(f"v{index}", "train", ("a",), GRID, (path,), duration=duration, instances=instances))
    return VideoSet("set", layout, ("a",), tuple(videos))


@given(st.lists(st.floats(1.0, 3000.0), min_size=1, max_size=6), st.floats(0.1, 1.0))
def test_features_on_their_grid_pass_whatever_was_dropped_at_the_end(
    folder: Path, durations: list[float], share: float
) -> None:
    rows = [(max(1, int(d * 25 / 16)), d, d * share) for d in durations]
    assert check_spans(make(folder, rows, "own")) == ()


@pytest.mark.parametrize("factor", [0.3, 0.5, 30 / 25 * 16 / 4, 2.0])
def test_another_grid_is_an_error_that_tells_it(folder: Path, factor: float) -> None:
    rows = [(int(d * factor * 25 / 16), d, None) for d in (100.0, 226.77, 60.0)]
    with pytest.raises(WtalError, match=r"the features of video v\d last .* s at 25 fps, stride 16, window 16, exp"):
        check_spans(make(folder, rows))


def test_odd_videos_among_many_are_noted(folder: Path) -> None:
    good = [(156, 100.0, 90.0)] * 5
    (note,) = check_spans(make(folder, [*good, (300, 100.0, 90.0)]))
    assert "differ in length in 1 of 6 videos: the features of video v5 last 192.0 s" in note
    (note,) = check_spans(make(folder, [*good, (156, 100.0, 130.0)]))
    assert "actions end after their features do in 1 of 6 videos" in note


def test_without_durations_the_actions_tell(folder: Path) -> None:
    with pytest.raises(WtalError, match=r"an action ends at 100\.0 s; likewise in 3 of 3 videos"):
        check_spans(make(folder, [(50, None, 100.0)] * 3, "basnet"))
    (note,) = check_spans(make(folder, [(1500, None, 200.0)] * 3, "basnet"))
    assert note.startswith("half the videos last far longer than their actions")
    assert check_spans(make(folder, [(156, None, None)] * 2)) == ()


def test_a_users_own_segment_behind_the_end_is_an_error(folder: Path) -> None:
    rows = [(156, None, 90.0)] * 4
    with pytest.raises(WtalError, match=r"v4 last 24\.3 s at 25 fps.*, but an action ends at 800\.0 s"):
        check_spans(make(folder, [*rows, (38, None, 800.0)], "own"))
