"""Snippets and seconds, against the formula that each layout publishes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.data.annotations import AnnotatedVideo
from wtal.data.layouts.actionformer import native_grid
from wtal.data.layouts.protocol import GRID
from wtal.data.timebase import Timebase

RATES = (25.0, 29.97, 30.0)


def grid(layout: str, fps: float) -> Timebase:
    if layout != "actionformer":
        return GRID
    return native_grid(AnnotatedVideo("v", "test", None, fps, None, ()), __file__)


def published(layout: str, index: np.ndarray, fps: float) -> np.ndarray:
    """Second of a snippet: W-TALC and BaSNet give its beginning, ActionFormer its middle."""
    if layout == "actionformer":
        return (index * 4 + 0.5 * 16) / fps
    return index * 16 / 25


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("layout", ["wtalc", "basnet", "actionformer"])
def test_grid_is_the_published_one(layout: str, fps: float) -> None:
    index = np.arange(5000)
    time = grid(layout, fps)
    ours = time.center(index) if layout == "actionformer" else time.edge(index)
    np.testing.assert_allclose(ours, published(layout, index, fps), rtol=0, atol=1e-9)


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("layout", ["wtalc", "basnet", "actionformer"])
@settings(deadline=None)
@given(second=st.floats(0.5, 4000))
def test_an_event_comes_back_within_half_a_snippet(layout: str, fps: float, second: float) -> None:
    time = grid(layout, fps)
    owner = int(np.floor(time.position(second)))
    half = 0.5 / time.snippets_per_second
    assert abs(time.center(owner) - second) <= half * (1 + 1e-9)
    # The snippet that the published formula puts nearest to the event is that one.
    middle = published(layout, np.arange(owner + 3), fps) + (0 if layout == "actionformer" else half)
    assert abs(middle[owner] - second) <= np.abs(middle - second).min() + 1e-9
    # A boundary that is rounded to the grid is off by half a snippet at most.
    assert abs(time.edge(round(time.position(second))) - second) <= half * (1 + 1e-9)


@settings(deadline=None)
@given(st.floats(1, 120), st.floats(1, 64), st.floats(1, 64), st.integers(0, 10**6))
def test_position_undoes_edge(fps: float, stride: float, window: float, index: int) -> None:
    time = Timebase(fps, stride, window)
    assert time.position(time.edge(index)) == pytest.approx(index, abs=1e-6)
    assert time.edge(index) < time.center(index) < time.edge(index + 1)


@pytest.mark.parametrize("name", ["fps", "stride", "window"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_grid_needs_positive_numbers(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a positive number"):
        Timebase(**{"fps": 25, name: value})
