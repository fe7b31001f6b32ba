from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from wtal.apply import known_grid
from wtal.branches import common_grid
from wtal.data.timebase import Timebase
from wtal.data.video import Video
from wtal.errors import WtalError

ONE = Video("a", "train", (), Timebase(30, 4, 16), (Path("a.npy"),), clip_fps=2.0)


def test_what_all_videos_share_is_known() -> None:
    other = dataclasses.replace(ONE, id="b")
    assert common_grid([ONE, other]) == {"fps": 30.0, "stride": 4.0, "window": 16.0, "clip_fps": 2.0}
    assert known_grid(common_grid([ONE, other])) == (Timebase(30, 4, 16), 2.0)


def test_videos_of_different_rates_need_a_rate_for_prediction() -> None:
    other = dataclasses.replace(ONE, timebase=Timebase(29.97, 4, 16), clip_fps=None)
    grid = common_grid([ONE, other])
    assert grid == {"fps": None, "stride": 4.0, "window": 16.0, "clip_fps": None}
    with pytest.raises(WtalError, match="videos that differ in fps: say --fps"):
        known_grid(grid)
    assert known_grid({**grid, "fps": 25.0}) == (Timebase(25, 4, 16), None)


@pytest.mark.parametrize("key", ["fps", "stride", "window", "clip_fps"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_grid_that_is_none_is_refused(key: str, value: float) -> None:
    with pytest.raises(WtalError, match="must be a positive number"):
        known_grid({**common_grid([ONE]), key: value})
