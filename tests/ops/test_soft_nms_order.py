"""The order of a large group's rows in soft_nms on CUDA: no result shows it, the number of tiles visited does.

The kernel runs on the host with its visits counted (tests/host_cuda/count_visits.cpp). Beside it stands a plain sort in
NumPy by what docs/postprocessing.md says: by octave of length, the longest first, then by cell of start.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools

import numpy as np
import pytest
from host_cuda import extension

WARPS, OCTAVES, CELLS = 16, 8, 512
pytestmark = pytest.mark.cuda_on_host


@functools.cache
def library() -> ctypes.CDLL:
    """count_visits.cpp, compiled as soft_nms.cu is."""
    folder = extension.ROOT / "build" / "host_cuda" / "plain"
    folder.mkdir(parents=True, exist_ok=True)
    rounding = extension.contraction(extension.ROOT / "csrc" / "cuda" / "soft_nms.cu")
    flags = [*extension.FLAGS, *extension.VARIANTS["plain"], *rounding]
    with extension.building():
        compiled = extension.compile_source(extension.HERE / "count_visits.cpp", folder, flags)
        loaded = ctypes.CDLL(str(extension.link(folder, "count_visits", [compiled], ["-shared"])))
    for function in (loaded.suppress_float, loaded.suppress_double):
        function.restype = ctypes.c_int64
    return loaded


@dataclasses.dataclass
class Suppressed:
    """rows: of the group, in the kernel's order ``[N]``; taken: rows ``[S]``; visits: of each warp ``[S, 16]``."""

    rows: np.ndarray
    taken: np.ndarray
    visits: np.ndarray


def suppress(segments: np.ndarray, scores: np.ndarray, selections: int) -> Suppressed:
    """The kernel, on all rows of one group."""
    real, count = segments.dtype.type, len(scores)
    size = segments.itemsize
    row = {"names": ["row"], "formats": [np.uint32], "offsets": [3 * size], "itemsize": 4 * size}
    ordered, taken = np.empty(count, np.dtype(row)), np.empty(selections, np.int64)
    visits = np.empty((selections, WARPS), np.uint32)
    call = library().suppress_float if real is np.float32 else library().suppress_double
    arrays = [array.ctypes.data_as(ctypes.c_void_p) for array in (segments, scores, ordered, taken, visits)]
    seed = ctypes.c_uint64(int(np.random.default_rng().integers(1, 2**32)))
    found = call(seed, *arrays[:2], ctypes.c_int64(count), ctypes.c_int64(selections), *arrays[2:])
    assert found == selections
    return Suppressed(ordered["row"].astype(np.int64), taken, visits)


def random_problem(
    count: int, octaves: int, dtype: type = np.float32, grid: float = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Ten segments a second, from 64 s down over so many octaves of length; ends are multiples of `grid`, if given."""
    rng = np.random.default_rng()
    length = np.exp2(6 - octaves * rng.random(count))
    start = rng.random(count) * count / 10 - length / 2
    if grid:
        start, length = np.floor(start / grid) * grid, np.ceil(length / grid) * grid
    return np.stack([start, start + length], 1).astype(dtype), (0.1 + 0.9 * rng.random(count)).astype(dtype)


def keys_of(segments: np.ndarray) -> np.ndarray:
    """Of each row the number of its octave, from the longest, and of its cell; rounded as the kernel does."""
    start, end = segments.T
    real = segments.dtype.type
    exponent = np.frexp((end - start) + real(1e-6))[1]
    octave = np.minimum(exponent.max() - exponent, OCTAVES - 1)
    cell = (start - start.min()) * (real(CELLS) / (start.max() - start.min()))
    return octave * CELLS + np.minimum(cell, real(CELLS - 1)).astype(int)


def visits_after(order: np.ndarray, segments: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """How many tiles of each warp a selection visits, ``[S, 16]``: those it overlaps in which a row is left.

    A tile has 32 rows, or as many times 32 as leave no more than 1024 tiles; tiles side by side are different warps'.
    """
    tile, at = np.empty(len(order), int), np.full(len(order), len(taken))
    tile[order] = np.arange(len(order)) // (32 * (len(order) // 32_768 + 1))
    at[taken] = np.arange(len(taken))
    low, high, last = np.full(tile.max() + 1, np.inf), np.full(tile.max() + 1, -np.inf), np.zeros(tile.max() + 1)
    np.minimum.at(low, tile, segments[:, 0])
    np.maximum.at(high, tile, segments[:, 1])
    np.maximum.at(last, tile, at)
    start, end = segments[taken].T[:, :, None]
    visited = (low < end) & (high > start) & (last >= np.arange(len(taken))[:, None])
    return np.pad(visited, ((0, 0), (0, -len(low) % WARPS))).reshape(len(taken), -1, WARPS).sum(1)


# Tiles of 32 rows, more of them than threads, tiles of 64; more octaves than are kept apart.
PROBLEMS = [(4_096, 6), (4_096, 12), (20_000, 6), (20_000, 8), (40_000, 7)]


@pytest.mark.parametrize(("count", "octaves"), PROBLEMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_lie_by_octave_of_length_then_by_start(dtype: type, count: int, octaves: int) -> None:
    segments, scores = random_problem(count, octaves, dtype)
    rows = suppress(segments, scores, 1).rows
    assert np.array_equal(np.sort(rows), np.arange(count))
    assert np.all(np.diff(keys_of(segments)[rows]) >= 0)


@pytest.mark.parametrize(("count", "selections"), [(1_500, 1_500), (20_000, 200), (40_000, 200)])
def test_a_selection_visits_the_tiles_that_it_overlaps_and_no_other(count: int, selections: int) -> None:
    """In the order that the kernel gave its rows; to the last row, when most tiles have none left; many ends meet."""
    segments, scores = random_problem(count, 6, grid=0.5)
    found = suppress(segments, scores, selections)
    np.testing.assert_array_equal(found.visits, visits_after(found.rows, segments, found.taken))


@pytest.mark.parametrize(("count", "octaves"), PROBLEMS)
def test_a_selection_visits_as_few_tiles_as_after_a_plain_sort(count: int, octaves: int) -> None:
    """Rows of the same cell lie as the threads came, which moves the mean by less than 1 %."""
    segments, scores = random_problem(count, octaves)
    found = suppress(segments, scores, 200)
    plain = np.lexsort((np.random.default_rng().random(count), keys_of(segments)))
    expected = visits_after(plain, segments, found.taken)
    assert found.visits.sum(1).mean() == pytest.approx(expected.sum(1).mean(), rel=0.03)
