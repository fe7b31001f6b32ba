"""Time stamps into frames, against the definition: output n shows the last frame whose time rounds to n or before."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtal.errors import WtalError
from wtal.features.resampling import MonotonicClock, Resampler
from wtal.features.video_length import Gaps


def resampled(times: list[Fraction], end: Fraction, fps: Fraction) -> list[int]:
    resampler: Resampler[int] = Resampler(fps)
    out: list[int] = []
    for index, time in enumerate(times):
        out.extend(resampler.push(time, index))
    out.extend(resampler.finish(end))
    return out


def rounded(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


steps = st.lists(st.fractions(0, 2, max_denominator=90), max_size=40)


@given(steps, st.fractions(0, 1, max_denominator=90), st.sampled_from([Fraction(25), Fraction(30000, 1001)]))
def test_resampling_is_its_definition(gaps: list[Fraction], tail: Fraction, fps: Fraction) -> None:
    times = [Fraction(0)]
    for gap in gaps:
        times.append(times[-1] + gap)
    end = times[-1] + tail
    count = max(rounded(end * fps), 1)
    wanted = [max(i for i, time in enumerate(times) if rounded(time * fps) <= n) for n in range(count)]
    assert resampled(times, end, fps) == wanted


@given(st.integers(1, 200), st.lists(st.floats(-0.49, 0.49), min_size=200, max_size=200))
def test_a_source_at_this_rate_passes_however_it_jitters(count: int, jitter: list[float]) -> None:
    times = [Fraction(0)] + [(n + Fraction(jitter[n])) / 25 for n in range(1, count)]
    assert resampled(times, Fraction(count, 25), Fraction(25)) == list(range(count))


def test_counted_by_hand() -> None:
    at_30 = [Fraction(n, 30) for n in range(6)]
    assert resampled(at_30, Fraction(6, 30), Fraction(25)) == [0, 1, 2, 4, 5]  # 2.5 rounds up: frame 3 is output 3 ...
    at_50 = [Fraction(n, 50) for n in range(8)]
    assert resampled(at_50, Fraction(8, 50), Fraction(25)) == [0, 2, 4, 6]
    at_10 = [Fraction(n, 10) for n in range(2)]
    assert resampled(at_10, Fraction(2, 10), Fraction(25)) == [0, 0, 0, 1, 1]


def read(stamps: list[float | None], declared: float | None = None, nominal: float = 0.04) -> list[float]:
    clock = MonotonicClock(Fraction(nominal).limit_denominator(), None if declared is None else Fraction(declared))
    return [float(clock.read(None if stamp is None else Fraction(stamp).limit_denominator(10_000))) for stamp in stamps]


@pytest.mark.parametrize(
    ("stamps", "seconds"),
    [
        ([0, 0.04, 0.08], [0, 0.04, 0.08]),
        ([-0.08, -0.04, 0], [0, 0.04, 0.08]),  # negative: the first frame is second 0
        ([5, 5.04], [0, 0.04]),
        ([None, None, None], [0, 0.04, 0.08]),
        ([None, 7, 7.04], [0, 0.04, 0.08]),  # stamps that begin later
        ([0, None, 0.1], [0, 0.04, 0.1]),
        ([0, 0.08, 0.04, 0.12], [0, 0.08, 0.08, 0.12]),  # jitter
        ([100, 100.04, 0, 0.04], [0, 0.04, 0.08, 0.12]),  # the clock starts over
    ],
)
def test_stamps_become_seconds(stamps: list[float | None], seconds: list[float]) -> None:
    assert read(stamps) == pytest.approx(seconds)


def test_a_jump_past_the_end_is_refused() -> None:
    with pytest.raises(WtalError, match=r"time stamps jump from 0\.0 s to 95443\.7 s in a video of 10\.0 s"):
        read([0, 0.04, 95443.7], declared=10)
    with pytest.raises(WtalError, match="unknown length"):
        read([0, 95443.7])
    assert read([0, 599.0]) == [0, 599.0]


@pytest.mark.parametrize(
    ("on", "stated", "lost"),
    [
        ([], 40, 0),
        ([40] * 20, 40, 0),
        ([40] * 20, 20, 0),  # a rate that the container guessed wrong
        ([40, 40, 120, 40, 80], 40, 120),
        ([33, 34, 33, 33, 67, 33], 33, 34),
        ([40, 40, 400], 400, 0),  # it was meant to be on for so long
    ],
)
def test_gaps_are_what_is_longer_than_usual(on: list[int], stated: int, lost: int) -> None:
    gaps = Gaps()
    for length in on:
        gaps.add(Fraction(length, 1000), Fraction(stated, 1000))
    assert 1000 * gaps.seconds() == lost
