"""Which frames each piece holds, against slices of the whole video."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wtal.data.timebase import Timebase
from wtal.features.snippets import BLOCK, Cut, FlowWindow, Piece, cut


class Done:
    """A block of flow whose values say between which frames it is."""

    def __init__(self, frames: Sequence[np.ndarray], repeat: bool) -> None:
        ids = [int(frame[0, 0]) for frame in frames]
        flows = [[a, b] for a, b in itertools.pairwise(ids)]
        if repeat:
            flows.append(flows[-1] if flows else [-1, -1])
        self._flows = np.array(flows, np.int16).reshape(-1, 1, 1, 2)

    def result(self) -> np.ndarray:
        return self._flows


def frames_of(count: int) -> Iterator[np.ndarray]:
    """Grey frames of one value each, so that their luma is the number of the frame."""
    return (np.full((4, 6, 3), index, np.uint8) for index in range(count))


def cut_all(count: int, stride: int, window: int, step: Fraction | None = None) -> tuple[list[Piece], list[int]]:
    submitted: list[int] = []

    def submit(block: int, frames: Sequence[np.ndarray], repeat: bool) -> Done:
        submitted.append(block)
        assert len(frames) <= BLOCK + 1
        return Done(frames, repeat)

    what = Cut(stride, window, 2, rgb=True, flow=submit, clip=True, clip_step=step)
    return list(cut(frames_of(count), what)), submitted


def values(pieces: list[Piece], stream: str) -> list[list[int]]:
    rows = [piece for piece in pieces if piece.stream == stream]
    assert [piece.row for piece in rows] == list(range(len(rows)))
    arrays = [piece.data.result() if isinstance(piece.data, FlowWindow) else piece.data for piece in rows]
    return [array.reshape(len(array), -1)[:, 0].tolist() for array in arrays]


@given(st.integers(1, 90), st.integers(1, 24), st.integers(1, 24))
def test_pieces_are_slices(count: int, stride: int, window: int) -> None:
    pieces, submitted = cut_all(count, stride, window)
    snippets = 1 + max(count - window, 0) // stride
    starts = [row * stride for row in range(snippets)]

    def shown(frame: int) -> int:
        return min(frame, count - 1)

    assert values(pieces, "rgb") == [[shown(start + k) for k in range(window)] for start in starts]
    assert [row[0] for row in values(pieces, "clip")] == [shown(start + window // 2) for start in starts]
    flow = [min(start + k, max(count - 2, 0)) for start in starts for k in range(window)]  # the last frame repeats
    wanted = np.array(flow).reshape(snippets, window).tolist()
    assert values(pieces, "flow") == (wanted if count > 1 else [[-1] * window])
    assert submitted == list(range(len(submitted)))
    for piece in pieces:
        if piece.stream == "rgb":
            assert piece.data.shape == (window, 2, 2, 3)
        if isinstance(piece.data, FlowWindow) and count > 1:
            assert (np.diff(piece.data.result()[:, 0, 0], axis=1) == 1).all()


@given(st.integers(1, 90), st.fractions(1, 40, max_denominator=12))
def test_clip_frames_at_a_rate_of_their_own(count: int, step: Fraction) -> None:
    pieces, _ = cut_all(count, 16, 16, step)
    wanted = [int(k * step + Fraction(1, 2)) for k in range(200)]
    assert [row[0] for row in values(pieces, "clip")] == [frame for frame in wanted if frame < count]


@given(st.integers(16, 200), st.sampled_from([(16, 16), (4, 16), (8, 16)]))
def test_the_centre_frame_is_the_timebases_centre(count: int, grid: tuple[int, int]) -> None:
    pieces, _ = cut_all(count, *grid)
    timebase = Timebase(25, *grid)
    for piece in pieces:
        if piece.stream == "clip":
            assert piece.data[0, 0, 0] / 25 == timebase.center(piece.row)


def test_counted_by_hand() -> None:
    assert len(values(cut_all(100, 16, 16)[0], "rgb")) == 6  # 96 frames in 6 snippets, 4 frames in none
    assert len(values(cut_all(250, 16, 16)[0], "rgb")) == 15
    assert len(values(cut_all(250, 4, 16)[0], "rgb")) == 59
    assert values(cut_all(17, 16, 16)[0], "flow") == [list(range(16))]  # its last flow looks at frame 16
    assert values(cut_all(16, 16, 16)[0], "flow") == [[*range(15), 14]]


def test_pieces_come_as_soon_as_their_frames_are_there() -> None:
    seen = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal seen
        for frame in frames_of(64):
            seen += 1
            yield frame

    what = Cut(16, 16, 2, True, lambda block, frames, repeat: Done(frames, repeat), True, None)
    when = [(piece.stream, piece.row, seen) for piece in cut(counted(), what)]
    assert when[:6] == [
        ("rgb", 0, 16),
        ("clip", 0, 16),
        ("flow", 0, 17),
        ("rgb", 1, 32),
        ("clip", 1, 32),
        ("flow", 1, 33),
    ]
    assert when[-1] == ("flow", 3, 64)
